"""The Redis engine: messages in Redis 7 or Valkey, moved by Lua scripts."""
