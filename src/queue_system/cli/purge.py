"""`purge`: removes what waits in queues, after asking."""

from __future__ import annotations

from typing import Annotated

import typer

from queue_system.cli.completion import queue_names
from queue_system.cli.options import Priority, Yes
from queue_system.cli.session import Session, command
from queue_system.cli.text import count, plain
from queue_system.client.flow import run_flow
from queue_system.client.purge import count_delayed_flow
from queue_system.model.keys import check_queue_name


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "purge")(purge)


def purge(
    session: Session,
    queues: Annotated[
        list[str],
        typer.Argument(metavar="QUEUE", help="Names of queues, such as send_mail.", autocompletion=queue_names),
    ],
    *,
    priority: Annotated[
        Priority | None, typer.Option(metavar="NAME", help="Only this list of each. Default: all three.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Remove all operations that wait in queues, delayed ones included. Running ones go on."""
    priorities = [priority] if priority else list(Priority)
    lists = [(check_queue_name(name, "queues"), kind.value) for name in dict.fromkeys(queues) for kind in priorities]

    def waiting() -> int:
        status = session.manager.get_queue_status()
        keys = [session.config.get_queue_key(*each) for each in lists]
        return sum(status.get(key, 0) for key in keys)

    def remove() -> dict[str, int]:
        return {f"{kind}:{name}": session.manager.purge_queue(name, kind) for name, kind in lists}

    named = ", ".join(dict.fromkeys(name for name, _ in lists))
    which = f"of priority {priority.value} " if priority else ""
    if not yes:
        queues = [f"{kind}:{name}" for name, kind in lists]
        delayed = run_flow(count_delayed_flow(session.config.shard, queues), session.config.run)
        too = f", and {count(delayed, 'delayed one')}" if delayed else ""
        session.output.confirm(f"Remove {count(waiting(), 'waiting operation')} {which}from {named}{too}?", yes=False)
    removed = session.output.follow("purging", remove, waiting)
    total = sum(removed.values())
    session.output.emit(
        {"removed": removed, "total": total}, plain(f"removed {count(total, 'operation')} from {named}")
    )
