"""The outside world, made up: an HTTP server that answers as WhatsApp does, with limits and faults as you ask."""
