"""The backplane of several machines: Redis, Valkey, and what speaks as they do."""
