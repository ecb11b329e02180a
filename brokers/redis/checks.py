"""What a Redis server must be like before messages are trusted to it."""

from collections.abc import Callable
from typing import Any

from core.errors import SettingsError
from core.logging import get_logger

log = get_logger(__name__)

MIN_VERSION = (7, 0)


def check_server(command: Callable[..., Any], address: str) -> dict[str, Any]:
    """Look at version and eviction policy; returns the fields of INFO that were read, by name.

    Raises:
        SettingsError: the server is too old, or it would evict messages when its memory is full.
    """
    info = {}
    for section in ("server", "memory", "persistence"):
        info.update(_fields(command("INFO", section)))
    version = info.get("redis_version", "0")
    if "valkey_version" not in info and _numbers(version) < MIN_VERSION:
        raise SettingsError(
            f"Redis at {address} has version {version}; 7.0 or later, or Valkey, is needed.", code="redis_version"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        message = (
            f"Redis at {address} has maxmemory-policy {policy}: it deletes messages when its memory is full. "
            "Set it to noeviction (CONFIG SET maxmemory-policy noeviction, and in its configuration)."
        )
        if info.get("maxmemory", "0") != "0":
            raise SettingsError(message, code="redis_eviction")
        log.warning("redis.eviction", problem=message)
    return info


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
