"""Orchestration: what takes several steps, fans out, or fans in."""

import actors  # noqa: F401  # composes the process, whichever of its packages is imported first
