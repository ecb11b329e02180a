"""What a scenario comes to on each system: the stock ones must show the loss, or the test is blind."""

from typing import Any

import pytest


def expect(**by_kind: Any) -> pytest.MarkDecorator:
    """Runs a test once for each kind of system named (`stock_redis` for stock-redis), with `expected`."""
    cases = [pytest.param(kind.replace("_", "-"), value, id=kind.replace("_", "-")) for kind, value in by_kind.items()]
    return pytest.mark.parametrize(("system", "expected"), cases, indirect=["system"])


def equal(ours: Any, **stock: Any) -> pytest.MarkDecorator:
    """As `expect`, with the same on both of our engines."""
    return expect(postgres=ours, redis=ours, **stock)
