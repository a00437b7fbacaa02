"""Whether this queue stays as fast when it grows: depth, queues, delayed operations, time. Never measures a peer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

from benchmarks import measures
from benchmarks.contestants.protocol import noop
from benchmarks.contestants.sending import BATCH_SIZE
from benchmarks.measures import Bench
from benchmarks.processes import Running
from benchmarks.results import Results
from benchmarks.roster import OURS
from benchmarks.runner import Effort, Record, tell
from benchmarks.servers import Snapshot, fresh_server
from queue_system import QueueConfig, QueueManager

_NAME = "queue_system, growth"
_HOUR_S = 3600.0
_ENQUEUED_PER_S = 100_000  # a careful guess, from which the moment that all becomes due is set
_SLOW_SCRIPT_US = 5000


def run_growth(server: str, effort: Effort, results: Results, *, huge: bool) -> None:
    """Measure growth, the due million, two workers and memory, each `effort.runs` times, and save the results."""
    unit = 1 if not effort.quick else 1000
    tell(f"{_NAME}:")
    with fresh_server(server) as own:
        bench, record = Bench(OURS, own, limit_s=600.0), Record(OURS, effort.runs)
        size, million = 300_000 // unit, 1_000_000 // unit
        grow = partial(grown, bench, size, effort.enqueue_s)
        depths = [0, 1000, million, *([10 * million] if huge else [])]
        for depth in depths:
            record.take(f"ready {depth:,}", partial(grow, ready=depth))
        for queues in (1000 // min(unit, 10), 10_000 // min(unit, 100)):
            record.take(f"queues {queues:,}", partial(grow, queues=queues))
        record.take(f"delayed {million:,}", partial(grow, delayed=million))
        record.take("due at once", lambda: due_at_once(bench, million))
        record.take("ready at once", lambda: measures.drain(bench, million, sync=False))
        for workers in (1, 2):
            record.take(f"workers {workers}", partial(fleet, bench, million, workers))
        record.take("memory", lambda: memory(bench, million), runs=1)
    results.data["suites"]["ours"]["contestants"][_NAME] = record.entry
    results.save()


@contextmanager
def _manager(bench: Bench) -> Iterator[QueueManager]:
    config = QueueConfig(redis_url=bench.server.url)
    yield QueueManager(config)
    if config.redis_client is not None:
        config.redis_client.close()


def _put(manager: QueueManager, count: int, **options: Any) -> None:
    for start in range(0, count, BATCH_SIZE):
        entities = [{"n": number} for number in range(start, min(start + BATCH_SIZE, count))]
        manager.enqueue_batch(entities, noop, **options)


def grown(
    bench: Bench, count: int, enqueue_s: float, *, ready: int = 0, queues: int = 1, delayed: int = 0
) -> dict[str, float]:
    """Drain `count` items, then enqueue for a while, on a server that holds so much besides."""
    bench.empty()
    with _manager(bench) as manager, closing(bench.server.client()) as client:
        for number in range(1, queues):
            manager.enqueue({"n": number}, noop, queue_name=f"queue{number}")
        if queues > 1:
            _work_off(bench, queues - 1)
        _put(manager, delayed, delay=_HOUR_S)
        _put(manager, ready + count)
        before = Snapshot.take(client)
        with bench.start("work", count=count) as worker:
            said = worker.hear("done", within_s=bench.limit_s)
        between = Snapshot.take(client)
        sent = bench.send(seconds=enqueue_s)
        after = Snapshot.take(client)
    if sent is None:
        return {}
    return {
        "drain": (count - 1) / said["seconds"],
        "drain_server_us": (between.cpu_s - before.cpu_s) / count * 1e6,
        "enqueue": sent["jobs"] / sent["seconds"],
        "enqueue_server_us": (after.cpu_s - between.cpu_s) / sent["jobs"] * 1e6,
    }


def _work_off(bench: Bench, count: int) -> None:
    with bench.start("work", count=count) as worker:
        worker.hear("done", within_s=bench.limit_s)
        time.sleep(0.5)  # what was processed last is being settled


def due_at_once(bench: Bench, count: int) -> dict[str, float]:
    """Let `count` delayed operations become due at one moment, and drain them."""
    bench.empty()
    with _manager(bench) as manager, closing(bench.server.client()) as client:
        due = time.monotonic() + count / _ENQUEUED_PER_S + 5.0
        for start in range(0, count, BATCH_SIZE):
            entities = [{"n": number} for number in range(start, min(start + BATCH_SIZE, count))]
            manager.enqueue_batch(entities, noop, delay=max(0.0, due - time.monotonic()))
        late_s = time.monotonic() - due
        if late_s > 0:
            tell(f"  enqueueing ended {late_s:.1f} s after the due time")
        client.config_set("slowlog-log-slower-than", _SLOW_SCRIPT_US // 5)
        client.slowlog_reset()
        with bench.start("work", count=count) as worker:
            said = worker.hear("done", within_s=bench.limit_s)
        slow: Any = client.slowlog_get(128)
        client.config_set("slowlog-log-slower-than", -1)
    longest_us = [entry["duration"] for entry in slow if entry["command"][:4].upper() == b"EVAL"]
    return {
        "rate": (count - 1) / said["seconds"],
        "longest_script_ms": max(longest_us, default=_SLOW_SCRIPT_US // 5) / 1000,
        "scripts_over_5_ms": float(sum(duration > _SLOW_SCRIPT_US for duration in longest_us)),
    }


def fleet(bench: Bench, count: int, workers: int) -> dict[str, float]:
    """Drain by several worker processes, and tell how busy they and the server were, as shares of one core."""
    bench.empty()
    with _manager(bench) as manager, closing(bench.server.client()) as client, ExitStack() as started:
        _put(manager, count)
        crew = [started.enter_context(bench.start("work")) for _ in range(workers)]
        _wait_for(client, count // 10, bench.limit_s)
        first = _fleet_moment(client, crew)
        _wait_for(client, count * 9 // 10, bench.limit_s)
        last = _fleet_moment(client, crew)
    seconds = last[0] - first[0]
    return {
        "rate": (last[1] - first[1]) / seconds,
        "server_busy": (last[2] - first[2]) / seconds,
        "worker_busy": (last[3] - first[3]) / seconds / workers,
    }


def _processed(client: Any) -> int:
    return int(client.hget("queue:metrics", "processed") or 0)


def _wait_for(client: Any, processed: int, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while _processed(client) < processed and time.monotonic() < deadline:
        time.sleep(0.02)


def _fleet_moment(client: Any, crew: list[Running]) -> tuple[float, int, float, float]:
    cpu_s = sum(worker.cpu_s for worker in crew)
    return time.monotonic(), _processed(client), Snapshot.take(client).cpu_s, cpu_s


def memory(bench: Bench, count: int) -> dict[str, float]:
    """Drain `count` operations, and return the worker's memory early (a tenth), half-way and at the end, in MB."""
    bench.empty()
    with _manager(bench) as manager, closing(bench.server.client()) as client:
        _put(manager, count)
        with bench.start("work", count=count) as worker:
            figures = {}
            for name, share in (("early_mb", 0.1), ("half_mb", 0.5), ("end_mb", 0.999)):
                _wait_for(client, int(count * share), bench.limit_s)
                figures[name] = worker.rss_kb / 1024
    return figures
