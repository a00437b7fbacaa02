"""Every error that the package raises, in one tree.

::

    QueueSystemError
    ├── InvalidInputError              an argument is wrong; nothing was written      (also ValueError)
    │   ├── UnserializableError        JSON cannot carry the entity; names the path
    │   └── ItemTooLargeError          the encoded item exceeds `max_item_bytes`
    ├── ServerError                    the server could not do what was asked
    │   ├── ServerUnreachableError     no answer within the bounded number of tries   (also ConnectionError)
    │   │   └── CertificateError       TLS fails over a certificate; trying again is of no use
    │   ├── ServerFullError            the server refuses writes: memory, disk or replicas
    │   ├── AccessDeniedError          wrong credentials or missing permission
    │   ├── WrongKeyTypeError          a key of ours holds a value of another type
    │   ├── UnconfirmedError           what is queued was not confirmed to be durable; carries `operation_ids`
    │   └── UnsupportedServerError     older than Redis 6.2, a sentinel, or a node of a cluster
    ├── CircuitOpenError               a breaker rejects the call; carries `retry_after`
    ├── UnknownOperationError          nothing is known of an operation: never enqueued, purged, or its record expired
    ├── WaitTimeoutError               an operation did not end in time               (also TimeoutError)
    ├── OperationFailedError           asked for its result, an operation has failed; carries its `error_type`
    ├── ResultUnavailableError         asked for its result, an operation has none: not finished, or not kept
    ├── ProcessDiedError               the child process of a processor died; carries its exit code
    ├── UnresolvableNameError          a name from Redis leads to no permitted callable
    ├── ImportFailedError              the module of a name from Redis raised while it was imported
    └── UndecodableItemError           bytes from Redis are not an item
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, Self

_LONGEST_TEXT = 8192


def cut_text(text: str) -> str:
    """Return an error's text as logs, records and dead letters keep it: bounded, and without lone surrogates."""
    kept = text[:_LONGEST_TEXT].encode(errors="backslashreplace").decode()
    if len(text) <= _LONGEST_TEXT and len(kept) <= _LONGEST_TEXT:
        return kept
    return f"{kept[:_LONGEST_TEXT]}… ({len(text)} characters)"


class QueueSystemError(Exception):
    """The root of all errors of this package."""


class InvalidInputError(QueueSystemError, ValueError):
    """An argument is wrong. `field` names it; nothing was written to Redis."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field

    def __reduce__(self) -> tuple[type[InvalidInputError], tuple[str, str]]:
        return type(self), (self.field, str(self).removeprefix(f"{self.field}: "))


class UnserializableError(InvalidInputError):
    """JSON cannot carry a value. `field` is the path to it, such as `entity.items[3].price`."""


class ItemTooLargeError(InvalidInputError):
    """The encoded item exceeds the configured `max_item_bytes`."""


class ServerError(QueueSystemError):
    """The server could not do what was asked.

    `queued_ids` are those operations of a batch that are queued all the same; of the others, `outcome_unknown` says
    whether an earlier try, whose answer was lost, may have queued them.
    """

    queued_ids: tuple[str, ...] = ()
    outcome_unknown: bool = False
    answers: tuple[Any, ...] = ()
    """What the commands of one call were answered, None for those without a good answer."""

    def after_lost_answer(self) -> Self:
        """Note that an earlier try got no answer, so that nobody knows whether it was carried out; return itself."""
        self.outcome_unknown = True
        if not isinstance(self, ServerUnreachableError):  # whose text says so
            self.args = (f"{self}; the outcome is unknown, as an earlier try got no answer: sending again is safe",)
        return self


class ServerUnreachableError(ServerError, ConnectionError):
    """No answer came within the bounded number of tries. Whether the server acted is unknown; resending is safe."""

    outcome_unknown = True


class CertificateError(ServerUnreachableError):
    """TLS fails over a certificate: the server's is not trusted or names another host, or it does not take ours.

    Nothing was sent, and trying again is of no use before the settings or the certificate change.
    """

    outcome_unknown = False


class ServerFullError(ServerError):
    """The server refuses writes: it is out of memory or disk, or lacks the replicas that it is configured to have."""


class UnconfirmedError(ServerError):
    """Operations are queued, but the server did not confirm their durability in time: a failure may yet lose them.

    Enqueueing them again with the same `operation_ids` is safe, and waits again.
    """

    def __init__(self, durability: str, operation_ids: Sequence[str], waited_s: float) -> None:
        shown_ids = ", ".join(operation_ids[:3]) + (", …" if len(operation_ids) > 3 else "")  # noqa: PLR2004
        super().__init__(
            f"durability: {durability!r} was not confirmed within {waited_s:.1f} s, so a failure of the server may lose"
            f" what is queued; enqueue again with the same operation_id: {shown_ids}"
        )
        self.durability = durability
        self.operation_ids = tuple(operation_ids)
        self.waited_s = waited_s

    def __reduce__(self) -> tuple[type[UnconfirmedError], tuple[str, tuple[str, ...], float]]:
        return type(self), (self.durability, self.operation_ids, self.waited_s)


class AccessDeniedError(ServerError):
    """The credentials are wrong, or the user lacks a permission."""

    logged_in: bool = True
    """False: it is the login that the server refuses, so that this user may do nothing there."""


class WrongKeyTypeError(ServerError):
    """A key under our prefix holds a value of a type that we did not write."""


class UnsupportedServerError(ServerError):
    """The server cannot be used: it is older than Redis 6.2, a sentinel, or a node of a cluster without its slot."""


class CircuitOpenError(QueueSystemError):
    """A circuit breaker rejects the call. `retry_after` is the number of seconds until it allows a trial."""

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(f"circuit {name!r} is open; the next trial call is allowed in {retry_after:.1f} s")
        self.name = name
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[CircuitOpenError], tuple[str, float]]:
        return type(self), (self.name, self.retry_after)


class UnknownOperationError(QueueSystemError, LookupError):
    """Nothing is known of an operation: it was never enqueued, was purged, or ended longer ago than `result_ttl`."""

    def __init__(self, operation_id: str) -> None:
        super().__init__(f"operation_id: nothing is known of {operation_id!r}: never enqueued, purged, or expired")
        self.operation_id = operation_id

    def __reduce__(self) -> tuple[type[UnknownOperationError], tuple[str]]:
        return type(self), (self.operation_id,)


class WaitTimeoutError(QueueSystemError, TimeoutError):
    """An operation did not end within the time that was given to the wait. It goes on."""


class OperationFailedError(QueueSystemError):
    """The operation whose result was asked for has failed for good.

    `status` is `"failed"` or `"system_error"`; `error_type` and `error` describe its last exception, if known.
    """

    def __init__(self, operation_id: str, status: str, error_type: str | None, error: str | None) -> None:
        reason = ": ".join(part for part in (error_type, error) if part) or "the reason is not known"
        super().__init__(f"operation {operation_id} ended as {status}: {reason}")
        self.operation_id = operation_id
        self.status = status
        self.error_type = error_type
        self.error = error

    def __reduce__(self) -> tuple[type[OperationFailedError], tuple[str, str, str | None, str | None]]:
        return type(self), (self.operation_id, self.status, self.error_type, self.error)


class ResultUnavailableError(QueueSystemError):
    """The operation whose result was asked for has none to give: it is not finished, or its result was not kept."""

    def __init__(self, operation_id: str, problem: str) -> None:
        super().__init__(f"operation {operation_id} has no result to give: {problem}")
        self.operation_id = operation_id
        self.problem = problem

    def __reduce__(self) -> tuple[type[ResultUnavailableError], tuple[str, str]]:
        return type(self), (self.operation_id, self.problem)


class ProcessDiedError(QueueSystemError):
    """The child process in which a processor ran has died. `exit_code` is negative for a signal, as of `subprocess`."""

    def __init__(self, exit_code: int) -> None:
        name = signal.strsignal(-exit_code) if exit_code < 0 else None
        how = f"died with signal {-exit_code} ({name})" if exit_code < 0 else f"exited with code {exit_code}"
        super().__init__(f"the process {how} before the processor returned")
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[ProcessDiedError], tuple[int]]:
        return type(self), (self.exit_code,)


class UnresolvableNameError(QueueSystemError):
    """A name from Redis leads to no callable that may be run."""


class ImportFailedError(QueueSystemError):
    """A name from Redis may be run, but its module raised while it was imported; `__cause__` is what it raised.

    That counts as a failed attempt: what is missing may be there the next time.
    """


class UndecodableItemError(QueueSystemError):
    """Bytes from Redis are not an item."""
