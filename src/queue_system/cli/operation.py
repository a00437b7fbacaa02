"""`operation show` and `operation wait`: what became of one operation."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from rich.console import RenderableType
from rich.table import Table

from queue_system.cli.exits import ExitCode
from queue_system.cli.help import PlainGroup
from queue_system.cli.options import duration
from queue_system.cli.session import Session, command
from queue_system.cli.text import beginning, marked, moment, plain, pretty_json
from queue_system.client.lookup import OperationRecord
from queue_system.errors import UnknownOperationError
from queue_system.logs import printable

_STYLES: Final = {"succeeded": "green", "failed": "red", "system_error": "bold red", "running": "cyan"}
_TIMES: Final = ("enqueued_at", "due_at", "started_at", "finished_at")
_TEXTS: Final = ("worker", "error_type", "error", "result_error")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=PlainGroup, no_args_is_help=True)
    app.add_typer(group, name="operation", help="Look at one operation.")
    command(group, "show")(show)
    command(group, "wait")(wait)


def show(
    session: Session,
    operation_id: Annotated[str, typer.Argument(metavar="OPERATION_ID", help="What `enqueue` returned.")],
) -> None:
    """Show what is known of an operation. The exit code is 1 if nothing is."""
    record = session.manager.get_operation(operation_id)
    if record is None:
        raise UnknownOperationError(operation_id)
    session.output.emit(_document(record), _view(record))


def wait(
    session: Session,
    operation_id: Annotated[str, typer.Argument(metavar="OPERATION_ID", help="What `enqueue` returned.")],
    *,
    timeout: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="How long to wait. Default: forever.")
    ] = None,
) -> None:
    """Wait until an operation is finished. The exit code is 1 if it failed, 5 if it did not end in time."""
    with session.output.progress(f"waiting for {printable(operation_id)}", None):
        record = session.manager.wait_for(operation_id, timeout=timeout)
    session.output.emit(_document(record), _view(record))
    if record.status != "succeeded":
        raise typer.Exit(ExitCode.NEGATIVE)


def _document(record: OperationRecord) -> dict[str, Any]:
    return {**{name: getattr(record, name) for name in record.__struct_fields__}, "finished": record.finished}


def _view(record: OperationRecord) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_row("operation", plain(record.operation_id, "bold"))
    table.add_row("status", plain(record.status, _STYLES.get(record.status, "")))
    table.add_row("queue", plain(f"{record.priority}:{record.queue}"))
    table.add_row("attempts", plain(record.attempts))
    if record.crashes:
        table.add_row("crashes", plain(record.crashes))
    for name in _TIMES:
        if (value := getattr(record, name)) is not None:
            table.add_row(name.removesuffix("_at"), moment(value))
    for name in _TEXTS:
        if value := getattr(record, name):
            table.add_row(name.replace("_", " "), beginning(value))
    if record.traceback:
        table.add_row("traceback", marked(record.traceback))
    if record.status == "succeeded" and not record.result_error:
        table.add_row("result", pretty_json(record.result))
    return table
