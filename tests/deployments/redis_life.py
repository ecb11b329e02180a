"""The life of a message in Redis, as a sign that an engine works."""

from brokers.redis.engine import RedisEngine
from core.errors import TransientError
from tests.conformance.messages import claim, ended, ids, messages


def works(engine: RedisEngine) -> bool:
    """Whether a message goes through its whole life now."""
    sent = messages(2)
    try:
        engine.enqueue_many(sent)
        claims = claim(engine)
        return ids(claims) == ids(sent) and all(engine.finish_many([ended(claimed) for claimed in claims]))
    except TransientError:
        return False
