"""`exporter`: serves the fleet's metrics until a signal ends it."""

from __future__ import annotations

from typing import Annotated

import typer

from queue_system import logs
from queue_system.cli.exits import ExitCode
from queue_system.cli.options import LogFormat, LogFormatOption, LogLevel, LogLevelOption, names
from queue_system.cli.session import Session, command
from queue_system.errors import InvalidInputError


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "exporter", has_json=False)(exporter)


def exporter(
    session: Session,
    *,
    http: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where it listens.")] = "127.0.0.1:9201",
    allowed_hosts: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="The public host names under which it answers, separated by commas."),
    ] = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Serve Prometheus metrics of the whole fleet until SIGTERM or Ctrl-C; workers may all be down meanwhile."""
    logs.configure(log_format.value, log_level.value)
    try:
        from queue_system.monitoring.exporter import export  # noqa: PLC0415 - an optional extra

        export(session.config, http, allowed_hosts=names(allowed_hosts or ""))
    except ImportError as missing:
        session.output.error(str(missing))
        raise typer.Exit(ExitCode.NEGATIVE) from missing
    except InvalidInputError as error:
        raise InvalidInputError("http", str(error).removeprefix("address: ")) from error
    except OSError as error:
        raise InvalidInputError("http", str(error)) from error
