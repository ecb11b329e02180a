"""Messages in PostgreSQL: the engine, dramatiq's broker on it, and a backend for dramatiq's own rate limiters."""
