"""Two stores as one: messages go to the second while the first is away. docs/fallback.md tells how and what remains."""

from brokers.fallback.engine import FallbackEngine
from brokers.fallback.state import FallbackState, state

__all__ = ["FallbackEngine", "FallbackState", "state"]
