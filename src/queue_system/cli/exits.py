"""The exit codes, and how a typed error is shown to an operator."""

from __future__ import annotations

import signal
from enum import IntEnum
from typing import Final

from queue_system.broker.failures import leads_elsewhere
from queue_system.errors import (
    AccessDeniedError,
    CertificateError,
    CircuitOpenError,
    InvalidInputError,
    QueueSystemError,
    ServerError,
    ServerUnreachableError,
    UnconfirmedError,
)


class ExitCode(IntEnum):
    """The meaning of the program's exit code."""

    DONE = 0
    """It was done; the answer is yes."""
    NEGATIVE = 1
    """The answer is no: an operation failed or is unknown, a check failed, a question was declined."""
    USAGE = 2
    """The command line is wrong; nothing was changed."""
    UNREACHABLE = 3
    """The server does not answer."""
    REFUSED = 4
    """The server answers, but refuses: access, memory, a foreign key, its age."""
    LATE = 5
    """The wait has timed out."""
    INTERRUPTED = 130
    """Ctrl-C, except where it is the way to end."""


_WAYS_OUT: Final[tuple[tuple[type[QueueSystemError], str], ...]] = (
    (CertificateError, "--url or QUEUE_SYSTEM_REDIS_URL names host and authority"),
    (ServerUnreachableError, "is it up? --url or QUEUE_SYSTEM_REDIS_URL names another server"),
    (AccessDeniedError, "`queue-system doctor` tells what this user lacks"),
)
_ELSEWHERE: Final = "--url or QUEUE_SYSTEM_REDIS_URL names the server"
_LOG_IN: Final = "--url or QUEUE_SYSTEM_REDIS_URL names them, as in redis://USER:PASSWORD@HOST:6379/0"


def end_as_asked() -> None:
    """Let a further Ctrl-C not kill the program while it leaves, once Ctrl-C was its way to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def exit_code(error: QueueSystemError) -> ExitCode:
    """Return the exit code for an error."""
    match error:
        case InvalidInputError():
            return ExitCode.USAGE
        case ServerUnreachableError() | CircuitOpenError():
            return ExitCode.UNREACHABLE
        case UnconfirmedError() | TimeoutError():
            return ExitCode.LATE
        case ServerError():
            return ExitCode.REFUSED
        case _:
            return ExitCode.NEGATIVE


def describe(error: QueueSystemError) -> str:
    """Return an error as one sentence and the way out."""
    if isinstance(error, AccessDeniedError) and not error.logged_in:
        return f"{error}; {_LOG_IN}"
    if leads_elsewhere(error.__cause__):
        return f"{error}; {_ELSEWHERE}"
    for kind, way_out in _WAYS_OUT:
        if isinstance(error, kind):
            return f"{error}; {way_out}"
    return str(error)
