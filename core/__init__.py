"""Shared vocabulary: settings, errors, logging, telemetry, clock. A closed list."""
