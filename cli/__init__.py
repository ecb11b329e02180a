"""The command `fanfare`."""
