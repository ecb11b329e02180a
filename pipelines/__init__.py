"""Orchestration: what takes several steps, fans out, or fans in."""
