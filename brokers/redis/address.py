"""Where the URL of a Redis leads: to one server, or to the one that Sentinel calls the master at this moment."""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from core.errors import SettingsError

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0
REDIS_PORT = 6379
SENTINEL_PORT = 26379
SENTINEL = "+sentinel"
"""End of the schemes that name sentinels: redis+sentinel:// and, with TLS, rediss+sentinel://."""
FORM = "redis+sentinel://[user:password@]host[:port][,host[:port]...]/service[/database]"
ONCE = Retry(NoBackoff(), 0)
"""Who sends a command again is `Link`, which knows what it may do."""


def connection_pool(url: str, *, answer_timeout_s: float | None = ANSWER_TIMEOUT_S) -> redis.ConnectionPool:
    """Makes connections to what `url` names; does no I/O itself.

    Args:
        url: As redis-py reads it (redis://, rediss:// for TLS, unix://), or `FORM`. User and password are the
            server's; the sentinels' own are the options `sentinel_username` and `sentinel_password`. All options of
            redis-py may follow a question mark, such as `ssl_ca_certs=/path` of a private authority.
        answer_timeout_s: Longest wait for a reply; None waits for ever.

    Raises:
        SettingsError: the URL of sentinels has another form.
    """
    # RESP2, because replies differ between protocols and redis-py's default has changed.
    options: dict[str, Any] = {"protocol": 2, "retry": ONCE, "socket_timeout": answer_timeout_s}
    if urlsplit(url).scheme != "unix":
        options |= {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_keepalive": True}
    if not urlsplit(url).scheme.endswith(SENTINEL):
        return redis.ConnectionPool.from_url(url, **options)
    service, found = _server_options(url)
    options |= found
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    # With TLS, sentinels are asked the same way as servers. A silent one must not hold up the question to the next.
    ssl = {name: value for name, value in options.items() if name.startswith("ssl")}
    asking = {"retry": ONCE, "socket_timeout": CONNECT_TIMEOUT_S, "socket_connect_timeout": CONNECT_TIMEOUT_S}
    sentinel = Sentinel(_hosts(url), sentinel_kwargs=own | ssl | asking)
    return SentinelConnectionPool(service, sentinel, **options)


def place(url: str) -> str:
    """Where `url` leads, for people, never with the password."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    if parts.scheme.endswith(SENTINEL):
        hosts = ",".join(f"{host}:{port}" for host, port in _hosts(url))
        return f"{_service(url)} of the sentinels {hosts}"
    return f"{parts.hostname or 'localhost'}:{parts.port or REDIS_PORT}"


def _hosts(url: str) -> list[tuple[str, int]]:
    parts = [urlsplit(f"//{host}") for host in urlsplit(url).netloc.rpartition("@")[2].split(",")]
    try:
        hosts = [(part.hostname or "", part.port or SENTINEL_PORT) for part in parts]
    except ValueError:  # a port that is no number
        hosts = []
    if not all(host for host, _ in hosts or [("", 0)]):
        raise SettingsError(f"The URL of the Redis sentinels must be {FORM}.", code="redis_url")
    return hosts


def _service(url: str) -> str:
    return urlsplit(url).path.strip("/").partition("/")[0]


def _server_options(url: str) -> tuple[str, dict[str, Any]]:
    """The service, and what redis-py reads from the rest of the URL about the server."""
    parts = urlsplit(url)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise SettingsError(f"The URL of the Redis sentinels must be {FORM}.", code="redis_url")
    user, at, _ = parts.netloc.rpartition("@")
    scheme = parts.scheme.removesuffix(SENTINEL)
    options: dict[str, Any] = dict(parse_url(urlunsplit((scheme, f"{user}{at}any", f"/{database}", parts.query, ""))))
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    return service, options | ({"ssl": True} if scheme == "rediss" else {})
