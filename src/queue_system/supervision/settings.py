"""What a worker is started with, checked before anything starts. Never reads the environment."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Final

from queue_system.errors import InvalidInputError, shown

_LOG_FORMATS: Final = {"text", "json"}


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How to run a worker, in one process or several. None leaves a choice to the target or to its default.

    Raises:
        InvalidInputError: a value makes no sense; its field is named.
    """

    target: str | None = None
    """`"module:object"`: a QueueConfig, a QueueWorker, or a callable without arguments, maybe async, that returns one.
    None: a QueueConfig of `url`, `prefix` and the environment, with processors by import."""
    url: str | None = field(default=None, repr=False)  # it may hold a password
    """The server, for a configuration that no target brings."""
    prefix: str | None = None
    """What every key begins with, for a configuration that no target brings."""
    queues: tuple[str, ...] | None = None
    """The names of the queues served."""
    allowed_modules: tuple[str, ...] | None = None
    """The modules from which processors may be imported; they take the place of the configuration's."""
    concurrency: int | None = None
    """How many operations one process runs at once."""
    processes: int = 1
    """How many processes run the worker; from 2 on they are supervised."""
    timeout: float | None = None
    """The limit of one attempt, in s."""
    burst: bool = False
    """Leave as soon as no item is ready and nothing runs here; delayed items that are not due are not waited for."""
    reload: bool = False
    """Start anew when a .py file below the current folder changes."""
    grace: float = 25.0
    """How long, in s, running operations may go on when the worker leaves."""
    max_operations: int | None = None
    """After about how many attempts a process is replaced."""
    max_memory_mb: float | None = None
    """Above how many MiB of resident memory a process is replaced, once it has settled an attempt."""
    http: str | None = None
    """`"HOST:PORT"` at which probes and metrics are served."""
    allowed_hosts: tuple[str, ...] = ()
    """The names under which they are asked, besides addresses and names of a private network."""
    tracebacks: bool | None = None
    """Whether dead letters, records and log lines tell where an error came from."""
    log_format: str = "text"
    """`"text"` or `"json"`."""
    log_level: str = "INFO"
    """The least level that is logged."""
    debug: bool = False
    """Whether what a target's own code raises is told with its traceback."""

    def __post_init__(self) -> None:
        _check("processes", self.processes, 1)
        _check("grace", self.grace, 0)
        _check("max_operations", self.max_operations, 1)
        _check("max_memory_mb", self.max_memory_mb, 1)
        if self.log_format not in _LOG_FORMATS:
            raise InvalidInputError("log_format", f"{shown(self.log_format)} is unknown; use 'text' or 'json'")
        if self.log_level.upper() not in logging.getLevelNamesMapping():
            raise InvalidInputError("log_level", f"{shown(self.log_level)} is unknown; use a name such as 'INFO'")
        if self.target is not None and not all(self.target.partition(":")):
            raise InvalidInputError("target", f"{shown(self.target)} is not usable; use 'module:object'")

    @property
    def supervised(self) -> bool:
        """Whether child processes run the worker, since something must start them anew."""
        return self.processes > 1 or self.reload or self.recycled

    @property
    def recycled(self) -> bool:
        """Whether a process is replaced when it has done or grown enough."""
        return self.max_operations is not None or self.max_memory_mb is not None


def _check(field: str, value: Any, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= least):
        raise InvalidInputError(field, f"{shown(value)} is not usable; use a number of at least {least}")
