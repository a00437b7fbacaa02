"""Turns the errors of a server or a connection into those of our tree.

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
from queue_system.logs import without_passwords

_TRANSIENT: Final = (
    "LOADING", "READONLY", "UNBLOCKED", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "ERR max number of clients",
    "max number of clients",
)  # fmt: skip
_FULL = re.compile(r"\b(OOM|MISCONF|NOREPLICAS)\b|used memory > 'maxmemory'")
_DENIED = re.compile(
    r"\b(NOAUTH|WRONGPASS|NOPERM)\b|invalid username-password|invalid password"
    r"|ACL failure in script|user executing the script",
    re.IGNORECASE,
)
_NO_LOGIN = re.compile(
    r"\b(NOAUTH|WRONGPASS)\b|invalid username-password|invalid password|Authentication required", re.IGNORECASE
)
_REFUSED: Final = ("invalid username-password", "invalid password", "WRONGPASS", "NOAUTH", "Authentication required")
_OLD = re.compile(r"unknown (redis )?command|number of arg", re.IGNORECASE)
_SECRET = re.compile(
    r"(?P<name>(?:password|passwd|pwd|auth)['\"]?\s*[=:]\s*)(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s&])[^\s&]*"
    r"|(?P<args>with args).*",
    re.IGNORECASE | re.DOTALL,
)
_LONGEST_CHAIN: Final = 20
_DATABASE = re.compile(r"DB index is out of range|invalid DB index", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace passwords in URLs and assignments, and arguments that a server quotes, by `***`."""
    if "@" in text:  # one in a URL's `?password=` passes for the end of a login, and what follows it would stay
        text = _without_assignments(text)
    return _without_assignments(without_passwords(text))


def _without_assignments(text: str) -> str:
    return _SECRET.sub(lambda m: f"{m['name'] or m['args']}***", text)


def _scrub(error: BaseException) -> None:
    """Redact an error and what caused it: a traceback shows them all."""
    link: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if link is None:
            return
        text = str(link)
        if (redacted := redact(text)) != text:
            link.args = (redacted,)
        link = link.__cause__ or link.__context__


def is_transient(error: BaseException) -> bool:
    """Tell whether sending the same command again, perhaps on a fresh connection, may help."""
    if isinstance(error, client.AuthenticationError | client.NoPermissionError) or str(error).startswith(_REFUSED):
        return False
    if isinstance(error, client.ResponseError | ErrorReply):
        return str(error).startswith(_TRANSIENT)
    return isinstance(error, client.ConnectionError | client.TimeoutError | OSError | EOFError)


def typed(error: BaseException, address: str) -> QueueSystemError:
    """Return the error of our tree for one of redis-py or the operating system; no password stays in either."""
    if isinstance(error, QueueSystemError):
        return error
    _scrub(error)
    text = redact(str(error)).removesuffix(".")
    if is_transient(error):
        return ServerUnreachableError(f"{address} does not answer: {text or type(error).__name__}")
    if _DATABASE.search(text):
        return ServerError(f"{address} has no such database: {text}; use a lower number in the URL, such as 0")
    if isinstance(error, client.AuthenticationError | client.NoPermissionError) or _DENIED.search(text):
        denied = AccessDeniedError(f"{address} denies access: {text}; check user, password and ACL")
        denied.logged_in = not _NO_LOGIN.search(text)
        return denied
    if _FULL.search(text):
        return ServerFullError(f"{address} refuses writes: {text}")
    if "WRONGTYPE" in text:
        return WrongKeyTypeError(f"a key under the queue prefix holds a value of another type: {text}")
    if _OLD.search(text):
        return UnsupportedServerError(
            f"{address} lacks a command of Redis 6.2, the oldest version that is supported: {text}"
        )
    return ServerError(f"{address} answered: {text}")
