"""Turns the errors of a server or a connection into those of our tree.

redis-py raises many of these as a plain ResponseError or as a subclass of ConnectionError, so the text decides.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from typing import Final

import redis.exceptions as client

from queue_system.broker.wire import ErrorReply
from queue_system.errors import (
    AccessDeniedError,
    CertificateError,
    QueueSystemError,
    ServerError,
    ServerFullError,
    ServerUnreachableError,
    UnsupportedServerError,
    WrongKeyTypeError,
)
from queue_system.logs import without_passwords

_IN_SCRIPT: Final = re.compile(
    r"\A(?:ERR Error running script \(call to \w+\): )?(?:@user_script: ?\d+: )+-?"  # Redis 6.2: before the error
    r"|\.? script:(?: [0-9a-f]{40},)? on @user_script:\d+\.?\Z"  # Redis 7 and Valkey: behind it
)
_BUSY: Final = frozenset({"LOADING", "BUSY", "TRYAGAIN", "UNBLOCKED"})
"""The server will serve; it does not now."""
_ELSEWHERE: Final = frozenset({"READONLY", "MASTERDOWN", "CLUSTERDOWN", "MOVED", "ASK"})
"""Another server is the one to ask, or will be."""
_REPLICA: Final = frozenset({"READONLY", "MASTERDOWN"})
_CLUSTER_DOWN: Final = re.compile(r"while the cluster is down")  # inside a script
_DEMOTED: Final = "instance state changed"
_MIGRATES: Final = re.compile(r"during rehashing of (the )?slot")
_TOO_MANY_CLIENTS: Final = re.compile(r"(ERR )?max number of clients")
_CODES_OF_CLASSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (client.BusyLoadingError, "LOADING"),
    (client.ReadOnlyError, "READONLY"),
    (client.MasterDownError, "MASTERDOWN"),
    (client.ClusterDownError, "CLUSTERDOWN"),
    (client.MovedError, "MOVED"),
    (client.AskError, "ASK"),
    (client.TryAgainError, "TRYAGAIN"),
    (client.ClusterCrossSlotError, "CROSSSLOT"),
)
"""redis-py takes the code off an error that it has a class for; the narrower class comes first."""
_CODE: Final = re.compile(r"([A-Z]+)( |\Z)")
_REDIRECTION: Final = re.compile(r"(?:(?:MOVED|ASK) )?(\d+) (\S+)")
_SLOTS: Final = re.compile(r"CROSSSLOT|non local key|do not hash to the same slot|don't hash to the same slot")
_FULL = re.compile(r"\b(OOM|MISCONF|NOREPLICAS)\b|used memory > 'maxmemory'")
_DENIED = re.compile(
    r"\b(NOAUTH|WRONGPASS|NOPERM)\b|invalid username-password|invalid password|unauthenticated (multi)?bulk"
    r"|ACL failure in script|user executing the script",
    re.IGNORECASE,
)
_NO_LOGIN = re.compile(
    r"\b(NOAUTH|WRONGPASS)\b|invalid username-password|invalid password|Authentication required"
    r"|unauthenticated (multi)?bulk",
    re.IGNORECASE,
)
_REFUSED: Final = ("invalid username-password", "invalid password", "WRONGPASS", "NOAUTH", "Authentication required")
_OLD = re.compile(r"unknown (redis )?command|number of arg", re.IGNORECASE)
_SECRET = re.compile(
    r"(?P<name>(?:password|passwd|pwd|auth)['\"]?\s*[=:]\s*)(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s&])[^\s&]*"
    r"|(?P<args>with args).*",
    re.IGNORECASE | re.DOTALL,
)
_LONGEST_CHAIN: Final = 20
_DATABASE = re.compile(r"DB index is out of range|invalid DB index|not allowed in cluster mode", re.IGNORECASE)
_CERTIFICATE: Final = re.compile(r"CERTIFICATE|UNKNOWN[_ ]CA|PEM[_ ]LIB|KEY[_ ]VALUES[_ ]MISMATCH")

TO_PRIMARY: Final = "connect to the primary"
_TRUST: Final = (
    "name the authority that issued it by ssl_ca_certs, connect under a host name that it holds, or have it renewed"
)


def across_slots(address: str) -> str:
    """Return what is told of a node of a cluster where the keys of a prefix lie in many slots."""
    return (
        f"{address} is a node of a cluster, where the keys of this prefix lie on several nodes: URLs of the form"
        " redis+cluster://... are not supported yet; use a prefix with a hash tag, such as queue_prefix='{queue}:',"
        " and the URL of the node that serves its slot, or a server that is no cluster"
    )


def redact(text: str) -> str:
    """Replace passwords in URLs and assignments, and arguments that a server quotes, by `***`."""
    if "@" in text:  # one in a URL's `?password=` passes for the end of a login, and what follows it would stay
        text = _without_assignments(text)
    return _without_assignments(without_passwords(text))


def _without_assignments(text: str) -> str:
    return _SECRET.sub(lambda m: f"{m['name'] or m['args']}***", text)


def _scrub(error: BaseException) -> None:
    """Redact an error and what caused it: a traceback shows them all."""
    for link in _chain(error):
        text = str(link)
        if (redacted := redact(text)) != text:
            link.args = (redacted,)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return an error and what caused it."""
    link: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__


def bare(error: BaseException) -> str:
    """Return the text of an error without what a server says of the script in which it arose."""
    return _IN_SCRIPT.sub("", str(error))


def code_of(error: BaseException) -> str:
    """Return the word by which servers tell what kind of error a reply is, such as `"READONLY"`; "" without one."""
    for kind, code in _CODES_OF_CLASSES:
        if isinstance(error, kind):
            return code
    if not isinstance(error, client.ResponseError | ErrorReply):
        return ""
    found = _CODE.match(bare(error))
    return found[1] if found else ""


def is_transient(error: BaseException) -> bool:
    """Return whether sending the same command again, perhaps on a fresh connection, may help."""
    if isinstance(error, client.AuthenticationError | client.NoPermissionError) or str(error).startswith(_REFUSED):
        return False
    code = code_of(error)
    if code in _BUSY or code in _ELSEWHERE:
        return True
    if isinstance(error, client.ResponseError | ErrorReply):
        text = bare(error)
        return any(pattern.search(text) for pattern in (_CLUSTER_DOWN, _MIGRATES)) or bool(
            _TOO_MANY_CLIENTS.match(text)
        )
    if isinstance(error, client.ConnectionError | client.TimeoutError | OSError | EOFError):
        return not _certificate_problem(error)
    return False


def leads_elsewhere(error: BaseException | None) -> bool:
    """Return whether a reply says that its server may not be the one to ask any more: no connection to it is kept.

    NOREPLICAS is among them: so answers a primary that was cut off from the others, which have another one now.
    """
    if not isinstance(error, client.ResponseError | ErrorReply):
        return False
    code = code_of(error)
    text = bare(error)
    return code in _ELSEWHERE or code == "NOREPLICAS" or _DEMOTED in text or bool(_CLUSTER_DOWN.search(text))


def is_of_replica(error: BaseException) -> bool:
    """Return whether a reply says that its server is a replica."""
    return code_of(error) in _REPLICA


def _certificate_problem(error: BaseException) -> str:
    """Return what is wrong with a certificate, the server's or the client's; "" if it is something else."""
    for link in _chain(error):
        if isinstance(link, ssl.SSLCertVerificationError):
            return link.verify_message or str(link)
        if isinstance(link, ssl.SSLError) and _CERTIFICATE.search(str(link).upper()):
            return str(link)
    return ""


def typed(error: BaseException, address: str) -> QueueSystemError:
    """Return the error of our tree for one of redis-py or the operating system; no password stays in either."""
    if isinstance(error, QueueSystemError):
        return error
    _scrub(error)
    text = redact(str(error)).removesuffix(".")
    if is_transient(error):
        return ServerUnreachableError(_unreachable(error, address, redact(bare(error)).removesuffix(".")))
    if isinstance(error, OSError | client.ConnectionError) and (problem := _certificate_problem(error)):
        return CertificateError(
            f"{address}: TLS fails over a certificate: {redact(problem).removesuffix('.')}; {_TRUST}"
        )
    if _SLOTS.search(text):
        return UnsupportedServerError(across_slots(address))
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


def _unreachable(error: BaseException, address: str, text: str) -> str:
    code = code_of(error)
    if code in _REPLICA:
        primary = getattr(error, "primary", "")
        link = ", and its link to that one is down" if code == "MASTERDOWN" else ""
        return f"{address} is a replica{f' of {primary}' if primary else ''}{link}: it takes no writes; {TO_PRIMARY}"
    moved = _REDIRECTION.match(text) if code in {"MOVED", "ASK"} else None
    if moved is None:
        return f"{address} does not answer: {text or type(error).__name__}"
    slot, there = moved.groups()
    if code == "ASK":
        return f"{address} is handing the keys of this prefix, in slot {slot}, over to {there}: try again after that"
    return f"{address} does not serve this prefix: its slot {slot} lies on {there}; connect to that node"
