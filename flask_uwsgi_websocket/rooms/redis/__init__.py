"""The backplane of several machines: Redis, Valkey, and what speaks as they do."""

from .backplane import RedisBackplane

__all__ = ["RedisBackplane"]
