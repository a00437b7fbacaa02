"""`status`: how much waits, runs and has failed, once or as a live table."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from queue_system.broker.failures import TO_PRIMARY
from queue_system.cli.exits import describe, end_as_asked
from queue_system.cli.options import duration
from queue_system.cli.session import Session, command
from queue_system.cli.text import count, moment, plain, span
from queue_system.errors import ServerError
from queue_system.inspection.fleet import FleetStats, read_fleet, rests_of
from queue_system.inspection.workers import WorkerRecord, read_workers
from queue_system.model.keys import PRIORITIES

_RATED: Final = ("enqueued", "processed", "retried", "failed")
_TOLD: Final = ("worker", "queues", "more_queues", "slots", "abandoned")
_STYLES: Final = {"failures": "yellow", "system_errors": "bold red"}
_AT_THE_CAP: Final = {
    "failures": "each new one drops the oldest; retry or drop some",
    "system_errors": "what cannot be resolved stays in its queue; retry or drop some",
}
_LEAST_INTERVAL_S: Final = 0.1


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "status")(status)


@dataclass(slots=True)
class Board:
    """What is shown: the fleet as last read, what happened since the time before, and trouble in reading."""

    address: str
    prefix: str
    empty_shown: bool = True
    now: FleetStats | None = None
    rates: dict[str, float] | None = None
    trouble: str = ""
    most_dead_letters: int = 0
    """How many dead letters each list keeps; 0: not known."""
    workers_shown: bool = False
    primary: Callable[[], Mapping[str, str]] = dict
    """Returns the service of the sentinels and where its primary is; nothing where there are no sentinels."""
    told: Sequence[WorkerRecord] = ()
    """The living workers that report about themselves."""

    def update(self, now: FleetStats, workers: Sequence[WorkerRecord] | None = None) -> None:
        """Take a new reading."""
        self.told = [worker for worker in workers or () if worker.queues is not None and not worker.dead]
        before = self.now
        self.now = now
        self.trouble = ""
        if before is not None and now.at > before.at:
            grown = {name: now.counters.get(name, 0) - before.counters.get(name, 0) for name in _RATED}
            self.rates = {name: round(max(0, n) / (now.at - before.at), 1) for name, n in grown.items()}

    def document(self) -> dict[str, Any]:
        """Return the board as a JSON object."""
        head: dict[str, Any] = {"server": self.address, "prefix": self.prefix, **self.primary()}
        if self.now is None or self.trouble:
            return {**head, "error": self.trouble}
        queues = [
            {"queue": name, **depths, "waiting": sum(depths.values()), "oldest_age_s": age}
            for name, (depths, age) in _by_name(self.now).items()
        ]
        more = {
            "complete": self.now.complete,
            "metrics": dict(sorted(self.now.counters.items())),
            "rates": self.rates,
        }
        if self.told:
            more["each_worker"] = [{name: getattr(each, name) for name in _TOLD} for each in self.told]
        if self.now.replica_of:
            more["replica_of"] = self.now.replica_of
        if rests := rests_of(self.now):
            more["resting"] = {name: [asdict(rest) for rest in by] for name, by in rests.items()}
        if full := self._full(self.now):
            more["full"] = full
        return {**head, "time": self.now.at, "queues": queues, **_stats(self.now), **more}

    def view(self) -> RenderableType:
        """Return the board as tables."""
        head = Text(" ").join([plain(self.address, "bold"), plain(self.prefix)])
        if primary := self.primary().get("primary"):
            head.append_text(plain(f"  primary {primary}"))
        parts: list[RenderableType] = [head]
        if self.now is not None:
            head.append(f"  {moment(self.now.at)}", "dim")
            if self.now.replica_of:
                told = f"this server is a replica of {self.now.replica_of}: what it shows may be old; {TO_PRIMARY}"
                parts.append(plain(told, "bold yellow"))
            parts += [self._queues(self.now), self._totals(self.now)]
            if self.workers_shown:
                parts.append(self._workers(self.now))
            parts += [
                plain(f"{each.worker} has {each.abandoned:,} abandoned threads and tasks that still run", "yellow")
                for each in self.told
                if each.abandoned
            ]
            parts += [
                plain(f"{name}: left alone by {count(len(rests), 'worker')}: {rests[0].reason}", "yellow")
                for name, rests in rests_of(self.now).items()
            ]
            parts += [
                plain(
                    f"{source} is full: {count(n, 'dead letter')} of {self.most_dead_letters:,}; {_AT_THE_CAP[source]}",
                    "yellow",
                )
                for source, n in self._full(self.now).items()
            ]
            if not self.now.complete:
                parts.append(Text(f"{len(self.now.queues):,} lists are shown; there are more", "yellow"))
        if self.trouble:
            parts.append(plain(self.trouble, "bold red"))
        return Group(*parts)

    def _full(self, now: FleetStats) -> dict[str, int]:
        """Return the lists of dead letters that hold as many as they may, and how many those are."""
        return {
            name: n for name, n in now.dead_letters.items() if self.most_dead_letters and n >= self.most_dead_letters
        }

    def _queues(self, now: FleetStats) -> RenderableType:
        if not now.queues:
            return Text("no queues yet", "dim")
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("queue", overflow="fold")
        for name in (*PRIORITIES, "waiting", "oldest"):
            table.add_column(name, justify="right")
        hidden = 0
        for name, (depths, age) in _by_name(now).items():
            numbers = [*depths.values(), sum(depths.values())]
            if not (self.empty_shown or any(numbers)):
                hidden += 1
                continue
            waited = "" if age is None else span(age)
            table.add_row(plain(name), *(Text(f"{n:,}", "" if n else "dim") for n in numbers), waited)
        if not hidden:
            return table
        note = Text(f"{count(hidden, 'queue')} {'holds' if hidden == 1 else 'hold'} nothing; --all shows them", "dim")
        return Group(table, note) if table.row_count else note

    def _workers(self, now: FleetStats) -> RenderableType:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("worker", overflow="fold")
        table.add_column("serves", overflow="fold")
        table.add_column("at once", justify="right")
        table.add_column("abandoned", justify="right")
        for each in self.told:
            table.add_row(plain(each.worker), plain(each.serves), f"{each.slots:,}", f"{each.abandoned:,}")
        untold = now.workers - len(self.told)
        note = Text(f"{count(untold, 'worker')} more, of which nothing is known", "dim")
        return Group(*([table] if self.told else []), *([note] if untold > 0 else []))

    def _totals(self, now: FleetStats) -> RenderableType:
        table = Table.grid("", "", "", "", "", padding=(0, 2))
        for column in (1, 3, 4):
            table.columns[column].justify = "right"
        left = [
            (name.replace("_", " "), Text(f"{n:,}", _STYLES.get(name, "") if n else ""))
            for name, n in _stats(now).items()
        ]
        right = [(name, f"{now.counters.get(name, 0):,}", self._rate(name)) for name in _RATED]
        for total, counted in zip_longest(left, right, fillvalue=()):
            table.add_row(*total, *counted)
        return table

    def _rate(self, name: str) -> str:
        return f"{self.rates[name]:,.1f}/s" if self.rates else ""


def _by_name(stats: FleetStats) -> dict[str, tuple[dict[str, int], float | None]]:
    """Return the depths by priority and the greatest age of each queue, the deepest queue first."""
    queues: dict[str, tuple[dict[str, int], float | None]] = {}
    for queue in stats.queues:
        depths, age = queues.setdefault(queue.name, (dict.fromkeys(PRIORITIES, 0), None))
        depths[queue.priority] = queue.depth
        ages = [known for known in (age, queue.oldest_age_s) if known is not None]
        queues[queue.name] = (depths, max(ages, default=None))
    return dict(sorted(queues.items(), key=lambda named: (-sum(named[1][0].values()), named[0])))


def _stats(stats: FleetStats) -> dict[str, int]:
    return {
        "waiting": sum(queue.depth for queue in stats.queues),
        "delayed": stats.delayed,
        "running": stats.running,
        "workers": stats.workers,
        **stats.dead_letters,
    }


def status(
    session: Session,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Repeat until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(parser=duration, metavar="TIME", help="With --watch: the time between two updates.")
    ] = 1.0,
    show_all: Annotated[
        bool, typer.Option("--all", "-a", envvar="QUEUE_SYSTEM_STATUS_ALL", help="Show queues that hold nothing, too.")
    ] = False,
    workers: Annotated[bool, typer.Option("--workers", help="Show each worker and the queues that it serves.")] = False,
) -> None:
    """Show how many operations wait, run and have failed. With --watch and --json, one line each time."""
    config = session.config
    board = Board(
        config.address,
        config.queue_prefix,
        empty_shown=show_all,
        most_dead_letters=config.max_dead_letters,
        workers_shown=workers,
        primary=lambda: config.primary,
    )

    def look() -> None:
        board.update(read_fleet(config), read_workers(config))

    if not watch:
        look()
        session.output.emit(board.document(), board.view())
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the terminal would not be put in order again
    try:
        _watch(session, board, look, max(interval, _LEAST_INTERVAL_S))
    except KeyboardInterrupt:
        end_as_asked()


def _watch(session: Session, board: Board, look: Callable[[], None], interval_s: float) -> None:
    """Look again and again; an outage is shown, and ends by itself."""
    output = session.output
    live = None if output.as_json or not output.out.is_terminal else Live(console=output.out, screen=True)
    with live or output.out:
        while True:
            try:
                look()
            except ServerError as error:
                board.trouble = describe(error)
            if live is not None:
                live.update(board.view(), refresh=True)
            elif output.as_json:
                output.line(board.document())
            else:
                output.out.print(board.view())
            time.sleep(interval_s)
