"""The verdict over one execution: decided here from plain values, written elsewhere. Never talks to Redis."""

from __future__ import annotations

from typing import Any

import msgspec

from queue_system.errors import InvalidInputError
from queue_system.model.operation import Operation
from queue_system.tracebacks import Trace, raisable, remote

_ROUNDING_S = 0.002  # both times are in whole ms, and a timer may be early by one


class Succeeded(msgspec.Struct, frozen=True, gc=False):
    """The processor returned `result`, or what `result_error` says that JSON cannot carry."""

    result: Any
    result_error: str = ""


class Raised(msgspec.Struct, frozen=True):
    """The processor raised, or was stopped at its limit (`timed_out`); `trace` says where.

    `exception` is what it raised; None where there is no such object, as of what a child process raised.
    """

    error: str
    error_type: str
    timed_out: bool = False
    trace: Trace | None = None
    began: bool = True
    """False: the total time had passed before, so nothing was executed."""
    exception: BaseException | None = None

    @staticmethod
    def before_start(limit_name: str) -> Raised:
        """Return the outcome of an operation whose time was over before it could start."""
        error = f"timed out before it could start: {limit_name.replace('what was', 'nothing is')}"
        return Raised(error, "TimeoutError", timed_out=True, began=False, exception=TimeoutError(error))


class Interrupted(msgspec.Struct, frozen=True, gc=False):
    """The worker stops; the processor was cancelled before its end."""


class Unprocessable(msgspec.Struct, frozen=True):
    """Nothing could be executed: the item or a name in it is at fault, or this worker, which lacks what is named.

    With a `wait` in s, another worker may know better: it waits so long where it `must_wait`, or finds no room among
    the system errors.
    """

    error: str
    error_type: str
    wait: float = 0.0
    must_wait: bool = False
    trace: Trace | None = None
    exception: BaseException | None = None


Outcome = Succeeded | Raised | Interrupted | Unprocessable


def error_of(outcome: Raised | Unprocessable) -> BaseException:
    """Return what went wrong; of what was raised in another process, an error of its name and text."""
    return outcome.exception or raisable(outcome.trace or remote(outcome.error_type, outcome.error, ""))


class Complete(msgspec.Struct, frozen=True, gc=False):
    """The operation is done; `result_error` says why its result is lost."""

    result: Any
    result_error: str = ""


class Retry(msgspec.Struct, frozen=True):
    """The operation runs again after `delay` seconds."""

    delay: float
    error: str
    error_type: str
    trace: Trace | None = None


class Fail(msgspec.Struct, frozen=True):
    """The operation goes to the failures; not `began`, without another execution."""

    error: str
    error_type: str
    trace: Trace | None = None
    began: bool = True


class Reject(msgspec.Struct, frozen=True):
    """The operation goes to the system errors; with a `wait` in s, it waits so long instead while they are full."""

    error: str
    error_type: str
    wait: float = 0.0
    trace: Trace | None = None


class Release(msgspec.Struct, frozen=True, gc=False):
    """The operation goes back to the head of its list, after `wait` s to its tail; no attempt is spent."""

    wait: float = 0.0


Verdict = Complete | Retry | Fail | Reject | Release


def judge(operation: Operation, outcome: Outcome, started: float, now: float) -> Verdict:
    """Decide what becomes of an operation. `started` and `now` are the server's time in Unix seconds."""
    if isinstance(outcome, Succeeded):
        return Complete(outcome.result, outcome.result_error)
    match outcome:
        case Interrupted():
            return Release()
        case Unprocessable(error, error_type, wait, must_wait, trace=trace):
            return Release(wait) if must_wait else Reject(error, error_type, wait, trace)
        case Raised():
            return _after_error(operation, outcome, started, now)


def _after_error(operation: Operation, raised: Raised, started: float, now: float) -> Verdict:
    error = raised.error
    error_type = raised.error_type
    trace = raised.trace
    if operation.phase:
        return Reject(f"{operation.phase} callback: {error}", error_type, trace=trace)
    try:
        retry = operation.retry_config
    except InvalidInputError as invalid:
        return Reject(f"the retry settings make no sense: {invalid}", type(invalid).__name__, trace=trace)
    if not raised.began:
        return Fail(error, error_type, trace, began=False)
    attempts = max(0, operation.attempts)  # a foreign item may say anything
    executions = attempts + 1
    if executions >= retry.max_attempts:
        return Fail(error, error_type, trace)
    delay = retry.get_delay_for_attempt(attempts)
    first = started if operation.first_attempt_time is None else operation.first_attempt_time
    if retry.would_exceed_timeout(first, now + _ROUNDING_S, delay=delay):
        return Fail(f"{error} (no retry: the total timeout of {retry.timeout} s would pass)", error_type, trace)
    return Retry(delay, error, error_type, trace)
