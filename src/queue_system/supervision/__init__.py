"""Runs workers as processes: one here, or several under a supervisor."""

from __future__ import annotations

from collections.abc import Mapping

from queue_system import logs
from queue_system.errors import InvalidInputError, QueueSystemError
from queue_system.supervision.serving import FAILED, REFUSED, serve
from queue_system.supervision.settings import WorkerSettings
from queue_system.supervision.supervisor import Supervisor
from queue_system.supervision.targets import complain, explain

__all__ = ["WorkerSettings", "run"]


def run(settings: WorkerSettings, variables: Mapping[str, str] | None = None, *, ends_process: bool = False) -> int:
    """Run a worker until a signal ends it, and return the exit code. Only the main thread may call this.

    `variables` names the environment variables that settings came from, for what is said of a bad one.

    With `ends_process`, as the command line does, the process ends with that code a few seconds after the worker, even
    if threads or tasks of the application run on, and when a processor blocks the event loop past the grace time.

    0: it left in order, or a burst is done. 1: it could not go on, or had to be killed. 2: the settings or their target
    make no sense. 128 + n: a second signal n ended it at once; what ran comes back when its lease is over.
    """
    logs.configure(settings.log_format, settings.log_level)
    try:
        return Supervisor(settings).run() if settings.supervised else serve(settings, ends_process=ends_process)
    except QueueSystemError as error:
        text = explain(error, debug=settings.debug)
        if isinstance(error, InvalidInputError) and error.field in (variables or {}):
            text = text.replace(f"{error.field}: ", f"{(variables or {})[error.field]}: ", 1)
        complain(text)
        return REFUSED if isinstance(error, InvalidInputError) else FAILED
