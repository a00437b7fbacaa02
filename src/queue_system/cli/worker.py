"""`worker`: processes operations until a signal ends it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import typer

from queue_system.cli.options import (
    AllowedModules,
    LogFormat,
    LogFormatOption,
    LogLevel,
    LogLevelOption,
    duration,
    names,
    whole,
)
from queue_system.cli.session import Session, command
from queue_system.errors import InvalidInputError
from queue_system.supervision import WorkerSettings, run
from queue_system.supervision.first_process import FIRST, waiting_for_orphans
from queue_system.worker import QueueWorker


@dataclass(frozen=True, slots=True)
class Options:
    """How to run the worker."""

    queues: Annotated[
        str | None, typer.Option(metavar="NAMES", help="The queues to serve, separated by commas. Default: all.")
    ] = None
    allowed_modules: AllowedModules = None
    concurrency: Annotated[
        int | None,
        typer.Option(
            parser=whole(1),
            metavar="N",
            help="How many operations run at once in a process. Default: 5, or the target's.",
        ),
    ] = None
    processes: Annotated[
        int, typer.Option(parser=whole(1), metavar="N", help="The number of processes; from 2 on they are supervised.")
    ] = 1
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=duration, metavar="TIME", help="The time limit of one attempt. Default: 30 s, or the target's."
        ),
    ] = None
    burst: Annotated[bool, typer.Option("--burst", help="Exit when nothing is left to do.")] = False
    reload: Annotated[bool, typer.Option("--reload", help="Restart when a .py file changes.")] = False
    grace: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="TIME", help="How long running operations may continue after a stop signal."
        ),
    ] = 25.0
    max_operations: Annotated[
        int | None,
        typer.Option(parser=whole(1), metavar="N", help="Replace a process after this many attempts. Default: never."),
    ] = None
    max_memory: Annotated[
        int | None,
        typer.Option(parser=whole(1), metavar="MIB", help="Replace a process that uses more memory. Default: never."),
    ] = None
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve probes and metrics, such as at 127.0.0.1:9200.")
    ] = None
    allowed_hosts: Annotated[
        str | None, typer.Option(metavar="NAMES", help="With --http: the public host names under which it answers.")
    ] = None
    tracebacks: Annotated[
        bool | None,
        typer.Option(
            "--tracebacks/--no-tracebacks",
            envvar="QUEUE_SYSTEM_TRACEBACKS",
            help="Keep tracebacks in dead letters, records and the log (--no-tracebacks: do not).",
        ),
    ] = None
    log_format: LogFormatOption = LogFormat.TEXT
    log_level: LogLevelOption = LogLevel.INFO


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "worker", has_json=False, starts_server=True)(worker)


def worker(
    session: Session,
    options: Options,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:OBJECT",
            help="A QueueConfig, a QueueWorker, or what returns one. Default: processors are imported by name.",
        ),
    ] = None,
) -> None:
    """Process operations until SIGTERM or Ctrl-C, which let running ones end within --grace."""
    place = session.place
    if target is not None and (extra := place.typed & {"url", "url_file", "prefix", "config"}):
        raise InvalidInputError(
            "target", f"it already names the server and the prefix; leave out --{min(extra).replace('_', '-')}"
        )
    chosen = asdict(options)
    served = chosen.pop("queues")
    chosen["max_memory_mb"] = chosen.pop("max_memory")
    allowed = chosen.pop("allowed_modules")
    settings = WorkerSettings(
        target=target or place.config,
        url=place.server_url,
        prefix=place.prefix,
        queues=None if served is None else names(served),
        allowed_modules=None if allowed is None else names(allowed),
        allowed_hosts=names(chosen.pop("allowed_hosts") or ""),
        debug=place.debug,
        **chosen,
    )
    if settings.target is None:
        QueueWorker(session.config, **_given(settings))  # so that an error names the option
    work = partial(run, settings, session.variables, ends_process=True)
    raise typer.Exit(waiting_for_orphans(work) if os.getpid() == FIRST else work())


def _given(settings: WorkerSettings) -> dict[str, Any]:
    values = {"max_workers": settings.concurrency, "work_timeout": settings.timeout, "queues": settings.queues}
    return {name: value for name, value in values.items() if value is not None}
