"""What the tests of signing and of encryption share: keys, a cipher, and what lies in the queue `jobs`."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any

import redis

from queue_system import QueueConfig

SECRET = "a secret of the year 2026"
KEYS = {"2026": SECRET}
ENTITY = {"card": "4111-of-the-entity"}


class StreamCipher:
    """A stream cipher of SHA-256 with a fresh nonce, and a tag over both: enough for a test, and for nothing else."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, plain: bytes) -> bytes:
        nonce = secrets.token_bytes(16)
        mixed = self._mix(nonce, plain)
        return nonce + self._tag(nonce + mixed) + mixed

    def decrypt(self, encrypted: bytes) -> bytes:
        nonce = encrypted[:16]
        tag = encrypted[16:48]
        mixed = encrypted[48:]
        if not hmac.compare_digest(tag, self._tag(nonce + mixed)):
            raise PermissionError(f"the key {self._key!r} does not fit")
        return self._mix(nonce, mixed)

    def _mix(self, nonce: bytes, data: bytes) -> bytes:
        blocks = (hashlib.sha256(self._key + nonce + b"%d" % n).digest() for n in range(len(data) // 32 + 1))
        return bytes(a ^ b for a, b in zip(data, b"".join(blocks), strict=False))

    def _tag(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, "sha256")


def push(client: redis.Redis, config: QueueConfig, *items: bytes) -> None:
    """Do what a foreign program does: register a list and push into it."""
    client.sadd(config.get_registry_key(), config.get_queue_key("jobs"))
    client.lpush(config.get_queue_key("jobs"), *items)


def waiting(client: redis.Redis, config: QueueConfig) -> list[bytes]:
    """Return the items that wait in that list, the newest first."""
    items: Any = client.lrange(config.get_queue_key("jobs"), 0, -1)
    return list(items)
