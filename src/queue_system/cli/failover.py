"""`failover`: puts a replica in the primary's place without losing an operation."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from queue_system.broker.failover import Plan, fail_over, plan_failover
from queue_system.cli.exits import ExitCode
from queue_system.cli.options import Yes, duration
from queue_system.cli.session import Session, command
from queue_system.cli.text import count, plain, span
from queue_system.errors import InvalidInputError

_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SENTINELS: Final = (
    "expected sentinels, which can switch to another server, got one server; "
    "write redis+sentinel://host1:26379,host2:26379/SERVICE"
)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "failover")(failover)


def failover(
    session: Session,
    *,
    timeout: Annotated[
        float,
        typer.Option(
            parser=duration,
            metavar="TIME",
            help="How long to wait until the replicas have all data.",
        ),
    ] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")] = False,
    yes: Yes = False,
) -> None:
    """Let a replica take the primary's place, as before maintenance; no operation is lost."""
    sentinels = session.config.shard.server.sentinels()
    if sentinels is None:
        raise InvalidInputError("redis_url", _SENTINELS)
    plan = plan_failover(sentinels)
    if dry_run:
        session.output.emit({**_described(plan), "switched": False}, plain(_told(plan)))
        return
    replicas = count(len(plan.replicas), "replica")
    session.output.confirm(f"Switch {plan.service!r} from {plan.primary.place} to one of its {replicas}?", yes=yes)
    with _signals_heeded():
        outcome = fail_over(sentinels, plan, timeout, session.output.note, _ignore_signals)
    document = {
        **_described(plan),
        "switched": bool(outcome.present),
        "present": outcome.present or None,
        "took_s": round(outcome.took_s, 3),
    }
    if not outcome.present:
        session.output.error(f"no other server became the primary within {span(timeout)}; the sentinels may yet switch")
        session.output.emit(document, plain(_told(plan)))
        raise typer.Exit(ExitCode.LATE)
    session.output.emit(
        document, plain(f"{outcome.present} is the primary of {plan.service!r} now, after {span(outcome.took_s)}")
    )


@contextlib.contextmanager
def _signals_heeded() -> Iterator[None]:
    """Let the other signals of an end be as Ctrl-C, too: whoever just died would leave writes paused."""
    before = {number: signal.getsignal(number) for number in _ENDS}
    try:
        for number in _ENDS:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """From here on nothing can be taken back: writes that went on now would be lost."""
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)


def _described(plan: Plan) -> dict[str, Any]:
    return {
        "service": plan.service,
        "former": plan.primary.place,
        "replicas": [{"place": replica.place, "bytes_behind": replica.behind} for replica in plan.replicas],
        "coordinated": plan.coordinated,
    }


def _told(plan: Plan) -> str:
    replicas = ", ".join(f"{replica.place} ({replica.behind:,} bytes behind)" for replica in plan.replicas)
    return f"{plan.service!r}: {plan.primary.place} is the primary; replicas: {replicas}; {plan.how}"
