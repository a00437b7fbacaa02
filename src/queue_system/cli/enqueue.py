"""`enqueue`: one operation from the command line."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer

from queue_system.cli.completion import queue_names
from queue_system.cli.options import Durability, Priority, Yes, duration, durations, json_value, whole
from queue_system.cli.session import Session, command
from queue_system.cli.text import plain
from queue_system.model.retry import QueueRetryConfig

_RETRIES: Final = {"max_attempts": "max_attempts", "retry_delays": "delays", "retry_timeout": "timeout"}
"""The options that make up a retry_config, and their names there."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the operation is queued and run."""

    queue: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: named after the processor.", autocompletion=queue_names)
    ] = None
    priority: Annotated[Priority, typer.Option(metavar="NAME", help="The priority: high, normal or low.")] = (
        Priority.NORMAL
    )
    operation_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Default: a new one. With the id of a known operation, nothing is added."),
    ] = None
    delay: Annotated[float, typer.Option(parser=duration, metavar="TIME", help="How long until it is due.")] = 0.0
    timeout: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="The time limit of one attempt.")
    ] = None
    max_attempts: Annotated[
        int | None, typer.Option(parser=whole(1), metavar="N", help="The largest number of attempts. Default: 5.")
    ] = None
    retry_delays: Annotated[
        Any, typer.Option(parser=durations, metavar="TIMES", help="The waits between attempts, such as 1s,10s,5m.")
    ] = None
    retry_timeout: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="The time limit of all attempts together.")
    ] = None
    deduplication_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="While an operation with this key is live, nothing is added.")
    ] = None
    on_success: Annotated[str | None, typer.Option(metavar="NAME", help="The function called with the result.")] = None
    on_failure: Annotated[
        str | None, typer.Option(metavar="NAME", help="The function called after the last attempt failed.")
    ] = None
    durability: Annotated[
        Durability | None,
        typer.Option(
            metavar="NAME",
            help="Wait for the server's memory (fast), its disk (fsync) or a replica (replicated)."
            " Default: the configuration's.",
        ),
    ] = None
    result_ttl: Annotated[
        float | None,
        typer.Option(
            parser=duration,
            metavar="TIME",
            help="How long its record is kept once finished. Default: the configuration's.",
        ),
    ] = None


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "enqueue", starts_server=True)(enqueue)


def enqueue(
    session: Session,
    processor: Annotated[
        str, typer.Argument(metavar="PROCESSOR", help="The function, such as package.module.function.")
    ],
    entity_json: Annotated[
        str, typer.Argument(metavar="ENTITY", help="Its input, a JSON document; - reads it from stdin.")
    ],
    options: Options,
    *,
    yes: Yes = False,
) -> None:
    """Enqueue one operation and print its id."""
    if processor.isidentifier() and not yes:
        _doubt(session, processor)
    entity = json_value(sys.stdin.buffer.read() if entity_json == "-" else entity_json)
    chosen = asdict(options)
    retries = {name: chosen.pop(option) for option, name in _RETRIES.items()}
    retries = {name: value for name, value in retries.items() if value is not None}
    answer = session.manager.enqueue(
        entity,
        processor,
        queue_name=chosen.pop("queue"),
        retry_config=QueueRetryConfig(**retries) if retries else None,
        **chosen,
    )
    session.output.emit(answer, plain(f"{answer['status']} {answer['operation_id']}"))


def _doubt(session: Session, processor: str) -> None:
    """Ask, or warn where nobody can answer, before a name goes out that workers cannot import."""
    problem = f"{processor!r} names no module, so only a worker whose own code has registered that name can run it"
    if sys.stdin.isatty():
        session.output.confirm(f"{problem}. Enqueue it anyway?", yes=False)
    else:
        session.output.note(f"Warning: {problem}; package.module.function is what every worker can import")
