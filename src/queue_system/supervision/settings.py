"""What a worker is started with, checked before anything starts."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Final

from queue_system.validation import check_choice, check_number, check_seconds, check_text, check_whole, refused, shown

_LOG_FORMATS: Final = ("text", "json")
_TARGET: Final = re.compile(r"[^:]+:.+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How to run a worker, in one process or several. None leaves a choice to the target or to its default.

    Raises:
        InvalidInputError: a value is wrong; `field` names it.
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
    """Exit as soon as no item is ready and nothing runs here, without waiting for delayed items."""
    reload: bool = False
    """Restart when a .py file below the current folder changes."""
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
    """Whether dead letters, records and log lines say where an error came from."""
    log_format: str = "text"
    """`"text"` or `"json"`."""
    log_level: str = "INFO"
    """The lowest level that is logged."""
    debug: bool = False
    """Whether errors of a target's own code are shown with their tracebacks."""

    def __post_init__(self) -> None:
        check_whole("processes", self.processes, 1)
        check_seconds("grace", self.grace)
        if self.max_operations is not None:
            check_whole("max_operations", self.max_operations, 1)
        if self.max_memory_mb is not None:
            check_number("max_memory_mb", self.max_memory_mb, 1, unit="MiB")
        check_choice("log_format", self.log_format, _LOG_FORMATS)
        if check_text("log_level", self.log_level, "the name of a level").upper() not in logging.getLevelNamesMapping():
            raise refused("log_level", "the name of a level", shown(self.log_level), "for example INFO")
        if self.target is not None:
            check_text("target", self.target, "'module:object'", _TARGET)

    @property
    def supervised(self) -> bool:
        """Whether child processes run the worker, since something must restart them."""
        return self.processes > 1 or self.reload or self.recycled

    @property
    def recycled(self) -> bool:
        """Whether a process is replaced when it has done or grown enough."""
        return self.max_operations is not None or self.max_memory_mb is not None
