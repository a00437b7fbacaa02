"""What the queue promises beyond delivery holds under faults: identical items, one live key, due times, callbacks."""

from __future__ import annotations

import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from tests.faults.conftest import Figures, OpenBench
from tests.faults.support import processors
from tests.faults.support.bench import Bench
from tests.faults.support.servers import start_workers
from tests.kit.waiting import wait_until

LEASE_S = 0.8
KEY = "the-one-key"
EARLY_BY_ROUNDING_S = 0.002
GENEROUSLY_LATE_S = 2.0
LONGEST_BLOCK_S = 5.0
SLOW_SCRIPT_US = 5000


def push_copies(bench: Bench, count: int) -> None:
    """Push one item many times, as a foreign client may; all bytes are the same."""
    names = {"processor": "work", "processor_module": processors.__name__}
    item = json.dumps({"entity": {"id": "copy", "seconds": 0.002}, **names})
    bench.client.sadd(f"{bench.prefix}registry", f"{bench.prefix}normal:copies")
    bench.client.lpush(f"{bench.prefix}normal:copies", *[item] * count)


def test_byte_identical_items_run_once_each_and_a_settlement_frees_one_of_them(bench: Bench, figures: Figures) -> None:
    copies = 1000
    snapshots: list[tuple[int, int, int]] = []
    push_copies(bench, copies)
    worker = bench.start_worker()
    while not snapshots or snapshots[-1][2] < copies:
        with bench.client.pipeline(transaction=True) as pipeline:
            pipeline.llen(f"{bench.prefix}normal:copies")
            pipeline.hkeys(f"{bench.prefix}inflight:{worker.incarnation}")
            pipeline.hget(f"{bench.prefix}metrics", "processed")
            ready, held, processed = pipeline.execute()
        snapshots.append((ready, sum(token.isdigit() for token in held), int(processed or 0)))
        assert worker.alive
    bench.wait_drained(5.0)

    figures(injected=copies, lost=copies - bench.counter("processed"), repeated=0, snapshots=len(snapshots))
    assert {sum(snapshot) for snapshot in snapshots} == {copies}
    assert bench.journal.count("start") == bench.journal.count("end") == {"copy": copies}


class Storm:
    """Producers that all enqueue under one deduplication key, each at least `calls` times, until the storm is over."""

    def __init__(self, bench: Bench, calls: int) -> None:
        self.queued: dict[str, str] = {}
        self.holders: set[str] = set()
        self.over = threading.Event()
        self._bench = bench
        self._calls = calls

    def produce(self, producer: int) -> int:
        """Enqueue again and again and remember the answers: operation id to the entity's id, and who held the key."""
        for call in itertools.count():
            if call >= self._calls and self.over.is_set():
                return call
            name = f"p{producer}-{call}"
            entity = {"id": name, "seconds": 0.005}
            answer = self._bench.manager.enqueue(entity, processors.work, deduplication_key=KEY)
            if answer["status"] == "queued":
                self.queued[answer["operation_id"]] = name
            else:
                self.holders.add(answer["operation_id"])
        raise AssertionError("unreachable")


def live_intervals(bench: Bench) -> list[tuple[int, int, str]]:
    """Return from the first start to the last end of each operation, in the order of the starts."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for entry in bench.journal.entries():
        if entry.event == "start":
            first.setdefault(entry.operation_id, entry.at_ns)
        last[entry.operation_id] = entry.at_ns
    return sorted((first[name], last[name], name) for name in first)


def test_a_storm_on_one_deduplication_key_has_one_live_operation_at_a_time_and_leaves_the_key_free(
    bench: Bench, figures: Figures, full: bool
) -> None:
    producers, calls, kills = (64, 157, 20) if full else (16, 40, 1)
    storm, moments = Storm(bench, calls), random.Random(1)
    bench.start_worker(lease=LEASE_S)
    with ThreadPoolExecutor(producers) as threads:
        done = [threads.submit(storm.produce, producer) for producer in range(producers)]
        for _ in range(kills):
            victim = bench.start_worker(lease=LEASE_S)
            time.sleep(moments.uniform(0.0, 0.2))  # the random moment itself
            victim.kill()
        storm.over.set()
        injected = sum(each.result() for each in done)
    bench.wait_drained(30.0)

    intervals = live_intervals(bench)
    overlaps = [later for former, later in itertools.pairwise(intervals) if later[0] < former[1]]
    figures(
        injected=injected, lost=len(storm.queued) - bench.counter("processed"),
        repeated=bench.journal.repeats(), overlaps=len(overlaps), queued=len(storm.queued), kills=kills,
    )  # fmt: skip
    assert overlaps == []
    assert {name for _, _, name in intervals} == set(storm.queued.values())
    assert storm.holders <= storm.queued.keys()
    assert bench.counter("processed") == len(storm.queued)
    assert not bench.client.exists(f"{bench.prefix}dedup")


def test_delayed_operations_never_start_early(bench: Bench, figures: Figures, full: bool) -> None:
    count, longest_s = (2000, 20.0) if full else (60, 1.2)
    moments, due = random.Random(1), {}
    bench.start_worker(slots=50)
    for i in range(count):
        delay, before = moments.uniform(0.3, longest_s), time.monotonic()
        bench.manager.enqueue({"id": f"delayed-{i}", "seconds": 0.0}, processors.work, delay=delay)
        due[f"delayed-{i}"] = (before + delay, time.monotonic() + delay)
    bench.wait_drained(longest_s + 10.0)

    started = {entry.operation_id: entry.at_ns / 1e9 for entry in bench.journal.entries("start")}
    early_s = max(due[each][0] - at for each, at in started.items())
    late_s = sorted(at - due[each][1] for each, at in started.items())
    figures(
        injected=count, lost=count - len(started), repeated=bench.journal.repeats(), early_ms=round(early_s * 1000, 1),
        late_p50_ms=round(late_s[count // 2] * 1000, 1), late_p99_ms=round(late_s[count * 99 // 100] * 1000, 1),
    )  # fmt: skip
    assert started.keys() == due.keys()
    assert early_s <= EARLY_BY_ROUNDING_S
    assert late_s[-1] <= GENEROUSLY_LATE_S


def test_operations_that_are_all_due_at_once_after_an_outage_block_no_server(
    open_bench: OpenBench, figures: Figures, full: bool
) -> None:
    count, chunk = (1_000_000, 10_000) if full else (5000, 1000)
    bench = open_bench(appendonly="no", slowlog_log_slower_than=str(SLOW_SCRIPT_US))
    for _ in range(count // chunk):
        bench.manager.enqueue_batch([{}] * chunk, processors.nothing, delay=0.05)
    bench.client.execute_command("SLOWLOG RESET")
    worker = bench.start_worker(slots=50)
    drained_s = bench.wait_drained(900.0 if full else 15.0)

    slow_us = [entry["duration"] for entry in bench.client.slowlog_get(1000) if b"EVALSHA" in entry["command"]]
    figures(
        injected=count, lost=count - bench.counter("processed"), repeated=0, recovery_s=round(drained_s, 2),
        scripts_over_5_ms=len(slow_us), slowest_ms=round(max(slow_us, default=0) / 1000, 1),
    )  # fmt: skip
    assert bench.counter("processed") == count
    assert "BUSY" not in worker.log
    assert "ERROR" not in worker.log


def test_callbacks_of_workers_that_die_right_after_the_settlement_run_once_each(
    bench: Bench, figures: Figures, full: bool
) -> None:
    rounds, victims, slots = 50 if full else 1, 2, 10
    ids: list[str] = []
    settled = recovery_s = 0.0
    for turn in range(rounds):
        ids += bench.enqueue(80, processors.work, 0.0, name=f"turn-{turn}", on_success=processors.on_success)
        before = bench.counter("processed"), bench.journal.count("success").total()
        started = [
            bench.start_worker(slots=slots, lease=LEASE_S, ready=False, hooks={"die_at": "settle-answered"})
            for _ in range(victims)
        ]
        for victim in started:
            assert victim.wait_end(20.0) == -signal.SIGKILL, victim.log
        settled += bench.counter("processed") - before[0]
        assert bench.journal.count("success").total() == before[1], "a callback ran before the death"
        successor = bench.start_worker(slots=2 * slots, lease=LEASE_S)
        recovery_s = max(recovery_s, bench.wait_drained(30.0))
        successor.stop()

    callbacks = bench.journal.count("success")
    figures(
        injected=rounds * victims, lost=len(ids) - len(callbacks), repeated=callbacks.total() - len(callbacks),
        recovery_s=f"{recovery_s:.2f} at most", settled_before_a_death=int(settled),
    )  # fmt: skip
    assert settled >= rounds * victims
    assert callbacks == dict.fromkeys(ids, 1)
    assert bench.counter("processed") == len(ids)


@contextmanager
def thief(bench: Bench) -> Iterator[threading.Thread]:
    """Steal the next wake-up marker, as a worker does that dies right after it was woken."""
    with closing(bench.server.client()) as client:
        thread = threading.Thread(target=lambda: client.bzpopmin(f"{bench.prefix}wake", timeout=30))
        thread.start()
        bench.wait_idle(1)
        try:
            yield thread
        finally:
            bench.client.zadd(f"{bench.prefix}wake", {"r": 0})
            thread.join(10.0)


def test_a_lost_wake_up_delays_an_operation_by_one_block_at_most(bench: Bench, figures: Figures, full: bool) -> None:
    rounds, waits_s = 20 if full else 1, []
    for turn in range(rounds):
        with thief(bench) as stealing:
            worker = bench.start_worker(slots=2)
            bench.wait_idle(2)
            (operation,) = bench.enqueue(1, processors.work, 0.0, name=f"turn-{turn}")
            stealing.join(5.0)
            assert not stealing.is_alive()
            what = f"it runs without a wake-up\n{bench.logs()}"
            waits_s.append(
                wait_until(lambda: bench.journal.count("end")[operation], what, 2 * LONGEST_BLOCK_S)  # noqa: B023
            )
        worker.stop()
    figures(injected=rounds, lost=0, repeated=bench.journal.repeats(), recovery_s=f"{max(waits_s):.2f} at most")
    assert max(waits_s) <= LONGEST_BLOCK_S + GENEROUSLY_LATE_S


def test_a_burst_reaches_every_idle_worker(bench: Bench, figures: Figures, full: bool) -> None:
    processes, copies, count = (5, 10, 1000) if full else (2, 5, 40)
    workers = processes * copies
    start_workers(bench, processes, slots=1, lease=15.0, hooks={"copies": copies})
    bench.wait_idle(workers, 20.0)
    before = time.monotonic_ns()
    bench.enqueue(count, processors.work, 0.5)
    busy_s = wait_until(lambda: busy(bench) == workers, "every worker is busy", 10.0)
    bench.wait_drained(60.0 if full else 15.0)
    first = sorted(entry.at_ns for entry in bench.journal.entries("start"))[:workers]
    figures(
        injected=count, lost=count - bench.counter("processed"), repeated=bench.journal.repeats(), workers=workers,
        all_busy_ms=round((first[-1] - before) / 1e6), seen_busy_s=round(busy_s, 2),
    )  # fmt: skip
    assert bench.counter("processed") == count
    assert bench.journal.repeats() == 0


def busy(bench: Bench) -> int:
    return sum(bool(bench.in_flight(incarnation)) for incarnation in bench.incarnations())
