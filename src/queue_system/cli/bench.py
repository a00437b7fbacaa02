"""`bench`: a short measurement of the given server, under a prefix of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import platform
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from queue_system.broker.diagnostics import delete_keys
from queue_system.broker.server_check import read_server
from queue_system.cli.exits import ExitCode
from queue_system.cli.options import Yes, whole
from queue_system.cli.output import Advance
from queue_system.cli.session import Session, command
from queue_system.cli.text import plain
from queue_system.config import QueueConfig
from queue_system.loop import run
from queue_system.manager import QueueManager
from queue_system.model.keys import PRIORITIES
from queue_system.worker import QueueWorker

_ENTITY: Final = {"id": 12345, "to": "ada@example.org", "subject": "A small payload, as most are", "tags": ["a", "b"]}
_NAME: Final = "bench"
_PROCESSOR: Final = "bench.note"
_LOOK_EVERY_S: Final = 0.1
_CHUNK: Final = 1000
_LATENCIES: Final = 200
_RECORDS_S: Final = 60.0  # what a killed run may leave of its records goes by itself


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "bench", starts_server=True)(bench)


@dataclass(frozen=True, slots=True)
class Measure:
    """What was measured: a number of operations, the seconds for all of them, and the time of each."""

    name: str
    operations: int
    seconds: float
    times: Sequence[float] = ()

    def document(self) -> dict[str, Any]:
        """Return the figures; times of one operation in ms."""
        cuts = quantiles(self.times, n=100) if len(self.times) > 1 else None
        return {
            "operations": self.operations,
            "seconds": round(self.seconds, 4),
            "per_second": round(self.operations / self.seconds),
            "p50_ms": round(cuts[49] * 1000, 3) if cuts else None,
            "p99_ms": round(cuts[98] * 1000, 3) if cuts else None,
        }


def bench(
    session: Session,
    *,
    operations: Annotated[
        int, typer.Option(parser=whole(100, 1_000_000), metavar="N", help="How many to enqueue and drain.")
    ] = 10_000,
    concurrency: Annotated[
        int, typer.Option(parser=whole(1), metavar="N", help="How many run at once in the worker.")
    ] = 10,
    yes: Yes = False,
) -> None:
    """Measure this server for some seconds, under a prefix that is removed afterwards."""
    address = session.config.address
    if not yes and not _is_local(session.config):
        session.output.error(f"{address} is not this machine, and a measurement loads it; --yes measures all the same")
        raise typer.Exit(ExitCode.USAGE)
    info, _ = read_server(session.config.shard.transport.run)
    singles = max(100, operations // 20)
    with _private(session.config) as (config, keep), session.output.progress(
        "measuring", singles + 2 * operations + _LATENCIES
    ) as advance:  # fmt: skip
        measures = [
            _enqueue_one_by_one(config, singles, keep, advance),
            _enqueue_in_batches(config, operations, keep, advance),
            *run(_work(config, operations + singles, concurrency, keep, advance)),
        ]
    version = info.get("valkey_version") or info.get("redis_version", "?")
    setting = {
        "server": address,
        "version": f"{'Valkey' if 'valkey_version' in info else 'Redis'} {version}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "concurrency": concurrency,
    }
    document = {**setting, **{measure.name.replace(" ", "_"): measure.document() for measure in measures}}
    session.output.emit(document, _view(setting, measures))


def _is_local(config: QueueConfig) -> bool:
    if config.shard.route.moves:
        return False  # a sentinel may name any machine
    pool = config.shard.endpoint().pool
    host = str(pool.connection_kwargs.get("host", "localhost"))
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _private(config: QueueConfig) -> Iterator[tuple[QueueConfig, list[str]]]:
    """Give a configuration with a prefix of its own, and a list for ids; delete all their keys at the end."""
    prefix = f"{config.queue_prefix}bench-{secrets.token_hex(4)}:"
    client = config.shard.server.client()
    private = QueueConfig(client, queue_prefix=prefix, result_ttl=_RECORDS_S, dedup_ttl=_RECORDS_S)
    ids: list[str] = []
    try:
        yield private, ids
    finally:
        shard = private.shard
        keys = shard.keys
        names = [keys.operation(operation_id) for operation_id in ids]
        names += [keys.queue(priority, _NAME) for priority in PRIORITIES]
        names += [f"{prefix}ready:{priority}" for priority in PRIORITIES]
        names += [keys.registry, keys.delayed, keys.workers, keys.metrics, keys.failures, keys.system_errors]
        names += [keys.drained, keys.resting, keys.watched, keys.wake(), keys.wake(_NAME)]
        names += [f"{prefix}{name}" for name in ("token", "dedup", "swept", "waiters", "incarnations")]
        for start in range(0, len(names), _CHUNK):
            shard.transport.run(delete_keys(names[start : start + _CHUNK]))
        private.close()


def _enqueue_one_by_one(config: QueueConfig, operations: int, ids: list[str], advance: Advance) -> Measure:
    manager = QueueManager(config)
    times = []
    for _ in range(operations):
        began = time.perf_counter()
        answer = manager.enqueue(_ENTITY, _PROCESSOR, queue_name=_NAME)
        times.append(time.perf_counter() - began)
        ids.append(answer["operation_id"])
        advance(1)
    return Measure("enqueue", operations, sum(times), times)


def _enqueue_in_batches(config: QueueConfig, operations: int, ids: list[str], advance: Advance) -> Measure:
    manager = QueueManager(config)
    seconds = 0.0
    for start in range(0, operations, _CHUNK):
        entities = [_ENTITY] * min(_CHUNK, operations - start)
        began = time.perf_counter()
        answers = manager.enqueue_batch(entities, _PROCESSOR, queue_name=_NAME)
        seconds += time.perf_counter() - began
        ids += [answer["operation_id"] for answer in answers]
        advance(len(answers))
    return Measure("enqueue batch", operations, seconds)


async def _work(
    config: QueueConfig, waiting: int, concurrency: int, ids: list[str], advance: Advance
) -> tuple[Measure, Measure]:
    """Drain what waits, then measure how long an idle worker takes to begin one operation."""
    manager = QueueManager(config)
    counted = _Counter(waiting)
    config.register_callback(counted.note, *reversed(_PROCESSOR.split(".")))
    worker = QueueWorker(config, concurrency)
    began = time.perf_counter()
    await worker.start()
    try:
        await counted.reached(advance)
        drained = Measure("drain", waiting, time.perf_counter() - began)
        times = []
        for _ in range(_LATENCIES):
            counted.expect(1)
            began = time.perf_counter()
            ids.append(manager.enqueue(_ENTITY, _PROCESSOR, queue_name=_NAME)["operation_id"])
            await counted.reached(advance)
            times.append(counted.last - began)
    finally:
        await worker.stop()
    return drained, Measure("latency", _LATENCIES, sum(times), times)


class _Counter:
    """The processor: it counts, and notices when enough have come."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.seen = 0
        self.last = 0.0
        self._done = asyncio.Event()

    def expect(self, more: int) -> None:
        """Wait for some more."""
        self.expected += more
        self._done.clear()

    async def note(self, _entity: object) -> None:
        """Count one."""
        self.last = time.perf_counter()
        self.seen += 1
        if self.seen >= self.expected:
            self._done.set()

    async def reached(self, advance: Advance) -> None:
        """Wait until all that is expected has come."""
        shown = self.seen
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), _LOOK_EVERY_S)
            advance(self.seen - shown)
            shown = self.seen


def _view(setting: dict[str, Any], measures: Sequence[Measure]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("operations", "per second", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for measure in measures:
        figures = measure.document()
        numbers = (figures["operations"], figures["per_second"], figures["p50_ms"], figures["p99_ms"])
        table.add_row(measure.name, *("-" if n is None else f"{n:,}" for n in numbers))
    place = "{version} at {server}; Python {python}, {cores} cores, concurrency {concurrency}".format_map(setting)
    remark = "enqueue: one process, one connection. drain: one worker process, in which the processor does nothing."
    return Group(
        plain(place), table, plain(remark, "dim"), plain("latency: from an enqueue to its start, when idle.", "dim")
    )
