"""Sorts what a server or a connection may answer into the error tree. Never sends anything.

redis-py raises many of these as a plain ResponseError or as a subclass of ConnectionError, so the text decides.
"""

from __future__ import annotations

import re
from typing import Final

import redis.exceptions as client

from queue_system.broker.wire import ErrorReply
from queue_system.errors import (
    AccessDeniedError,
    QueueSystemError,
    ServerError,
    ServerFullError,
    ServerUnreachableError,
    UnsupportedServerError,
    WrongKeyTypeError,
)

_TRANSIENT: Final = (
    "LOADING", "READONLY", "UNBLOCKED", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "ERR max number of clients",
    "max number of clients",
)  # fmt: skip
_FULL: Final = ("OOM", "MISCONF", "NOREPLICAS")
_DENIED: Final = ("NOAUTH", "WRONGPASS", "NOPERM", "invalid username-password", "invalid password")
_SECRET = re.compile(r"(://[^:/@\s]*:)[^@\s]*@|((?:password|passwd|pwd|auth)\s*[=:]\s*)[^\s,;&]+", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace passwords in URLs and assignments by `***`."""
    return _SECRET.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", text)


def is_transient(error: BaseException) -> bool:
    """Tell whether sending the same command again, perhaps on a fresh connection, may help."""
    text = str(error)
    if _has(text, _DENIED):
        return False
    if isinstance(error, client.ConnectionError | client.TimeoutError | OSError | EOFError):
        return True
    return isinstance(error, client.ResponseError | ErrorReply) and text.startswith(_TRANSIENT)


def typed(error: BaseException, address: str) -> QueueSystemError:
    """Return the error of our tree for one of redis-py or the operating system. No password is in its message."""
    if isinstance(error, QueueSystemError):
        return error
    text = redact(str(error))
    if _has(text, _DENIED) or isinstance(error, client.AuthenticationError | client.NoPermissionError):
        return AccessDeniedError(f"{address} denies access: {text}; check user, password and ACL")
    if _has(text, _FULL) or isinstance(error, client.OutOfMemoryError):
        return ServerFullError(f"{address} refuses writes: {text}")
    if "WRONGTYPE" in text:
        return WrongKeyTypeError(f"a key under the queue prefix has a foreign type: {text}")
    if "unknown command" in text.lower() or "Number of args" in text:
        return UnsupportedServerError(
            f"{address} lacks a command; Redis 6.2 or Valkey 7.2 is the oldest supported: {text}"
        )
    if is_transient(error):
        return ServerUnreachableError(f"{address} gives no answer: {text or type(error).__name__}")
    return ServerError(f"{address} answered: {text}")


def _has(text: str, marks: tuple[str, ...]) -> bool:
    return any(mark in text for mark in marks)
