"""`doctor`: examines server, workers and keys, with advice for each."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from queue_system.cli import checks_fleet, checks_keys, checks_server, checks_topology
from queue_system.cli.checks import Check, Examination, Level, Result, examine
from queue_system.cli.exits import ExitCode
from queue_system.cli.options import AllowedModules, names
from queue_system.cli.session import Session, command
from queue_system.cli.text import plain
from queue_system.config import check_modules
from queue_system.errors import AccessDeniedError, ServerError, ServerUnreachableError, UnsupportedServerError

CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("server", checks_server.server),
    ("replication", checks_topology.replication),
    ("cluster", checks_topology.cluster),
    ("persistence", checks_server.persistence),
    ("eviction", checks_server.eviction),
    ("memory", checks_server.memory),
    ("latency", checks_server.latency),
    ("clock", checks_server.clock),
    ("rights", checks_server.rights),
    ("names", checks_server.names),
    ("orphans", checks_keys.orphans),
    ("dead letters", checks_keys.dead_letters),
    ("workers", checks_fleet.workers),
    ("stuck leases", checks_fleet.stuck_leases),
)
_STYLES: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red", Level.SKIP: "dim"}


class Role(StrEnum):
    """What a user of the server is for."""

    ENQUEUER = "enqueuer"
    PRODUCER = "producer"
    WORKER = "worker"
    VIEWER = "viewer"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor")(doctor)


def doctor(
    session: Session,
    role: Annotated[
        Role | None,
        typer.Option(
            metavar="ROLE", help="The role whose rights this user must have: enqueuer, producer, worker or viewer."
        ),
    ] = None,
    allowed_modules: AllowedModules = None,
) -> None:
    """Examine server, workers and keys. The exit code is 1 if a check fails; warnings leave it 0."""
    examination = Examination(session.config, None if role is None else role.value)
    if allowed_modules is not None:
        examination.allowed_modules = check_modules(names(allowed_modules))
    try:
        _ = examination.first_look  # as early as can be: the checks of workers compare with it
    except (ServerUnreachableError, UnsupportedServerError):
        raise
    except ServerError as error:
        if isinstance(error, AccessDeniedError) and not error.logged_in:
            raise
        # else the checks that need it say why
    results: list[tuple[str, Result]] = []
    with session.output.progress("examining", len(CHECKS)) as advance:
        for result in examine(examination, CHECKS):
            results.append(result)
            advance(1)
    levels = Counter(result.level for _, result in results)
    document = {
        "server": session.config.address,
        **session.config.primary,
        "prefix": session.config.queue_prefix,
        "ok": not levels[Level.FAIL],
        "checks": [
            {
                "name": name.replace(" ", "_"),
                "level": result.level.value,
                "sentence": result.sentence,
                "advice": result.advice,
                "details": dict(result.details),
            }
            for name, result in results
        ],
    }
    session.output.emit(document, _view(results, levels))
    if levels[Level.FAIL]:
        raise typer.Exit(ExitCode.NEGATIVE)


def _view(results: list[tuple[str, Result]], levels: Counter[Level]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for name, result in results:
        said = plain(result.sentence)
        if result.advice:
            said.append(f"\n→ {plain(result.advice)}", "italic")
        table.add_row(Text(result.level.value, _STYLES[result.level]), name, said)
    words = {Level.OK: "ok", Level.WARN: "to look at", Level.FAIL: "failed", Level.SKIP: "not looked at"}
    summary = ", ".join(f"{levels[level]} {word}" for level, word in words.items() if levels[level])
    return Group(table, Text(f"\n{len(results)} checks: {summary}"))
