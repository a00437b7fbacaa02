"""A server whose data was cut, deleted or replaced: what is left is whole, and what comes anew runs.

Not tested, for want of such a file system: data that is damaged in its middle, which no server loads.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from queue_system import QueueRetryConfig
from tests.faults.conftest import Figures, OpenBench
from tests.faults.support import processors
from tests.faults.support.bench import Bench, WorkerProcess
from tests.faults.support.servers import (
    contradictions,
    items_in,
    on_each_server_in_full,
    producing,
    snapshot,
    start_workers,
    wait_ended,
)
from tests.kit.logs import without_told_tracebacks
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import wait_until
from tests.scripts.support import SQUATTER

LEASE_S = 1.0
TAIL = 64 * 1024
PATIENCE_S = 60.0
"""After how long a test that hangs ends; no promise."""
RUN_AGAIN_WITHIN_S = 10.0
KEYS = (
    "registry", "ready:normal", "delayed", "workers", "inflight:*", "token", "operation:*", "dedup", "wake",
    "wake:work", "swept", "failures", "system_errors", "metrics", "normal:work",
)  # fmt: skip
"""A pattern for each key of docs/redis-keys.md that a busy fleet uses."""
SQUAT_S = 0.5
SQUAT = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' then redis.call('RENAME', KEYS[1], KEYS[2]) end
if kind == 'string' then redis.call('RPUSH', KEYS[1], ARGV[1]) else redis.call('SET', KEYS[1], ARGV[1]) end
"""
LEAVE = """
local kind, squatter = redis.call('TYPE', KEYS[1]).ok, false
if kind == 'string' then squatter = redis.call('GET', KEYS[1]) == ARGV[1] end
if kind == 'list' then squatter = redis.call('LINDEX', KEYS[1], 0) == ARGV[1] end
if not squatter then return redis.call('DEL', KEYS[2]) end
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end
"""


def enqueue_all_kinds(bench: Bench, rounds: int) -> None:
    """Enqueue operations that succeed, are late, fail, are rejected, wait and call back, one kind after the other."""
    twice = QueueRetryConfig(max_attempts=2, delays=[0.05])
    missing = f"{processors.__name__}.missing"
    for number in range(rounds):
        keys = [f"key-{number}-{i}" for i in range(50)]
        bench.enqueue(
            50, processors.work, 0.02, name=f"work-{number}", on_success=processors.on_success, deduplication_key=keys
        )
        bench.enqueue(
            3, processors.work, 9.0, name=f"late-{number}", timeout=0.02, retry_config=twice,
            on_failure=processors.on_failure, priority="high" if number % 2 else "normal",
        )  # fmt: skip
        bench.enqueue(3, processors.work, 0.0, name=f"soon-{number}", delay=0.1 * number, queue_name="soon")
        bench.manager.enqueue_batch(
            [{"id": f"missing-{number}"}], missing, operation_id=[f"missing-{number}"], priority="low",
            queue_name=f"missing-{number}",  # of one queue, those after the fifth would wait
        )  # fmt: skip


def leave_in_the_middle(bench: Bench, rounds: int) -> None:
    """Let two workers run operations of all kinds; kill one, and the other as soon as it has taken over from it."""
    enqueue_all_kinds(bench, rounds)
    first, second = start_workers(bench, 2, slots=5, lease=LEASE_S)
    wait_until(lambda: bench.counter("processed") > 50, "work is under way", PATIENCE_S)

    def stopped_with_work() -> bool:
        first.send(signal.SIGSTOP)
        if bench.in_flight(first.incarnation):
            return True
        first.send(signal.SIGCONT)
        return False

    wait_until(stopped_with_work, "the first holds something", PATIENCE_S)
    first.kill()
    wait_until(lambda: bench.counter("reclaimed") > 0, f"the other took over\n{second.log}", PATIENCE_S)
    second.kill()


@pytest.mark.timeout(1200)  # in full it starts 500 servers
@on_each_server_in_full
def test_a_log_cut_anywhere_in_its_tail_leaves_an_earlier_state_that_is_whole_and_drains(
    start_server: StartServer, figures: Figures, full: bool, binary: Path | None, tmp_path: Path
) -> None:
    """No operation lies in two places or in none, and each list is indexed: the prefix property."""
    server = start_server(binary=binary, appendfsync="everysec")
    with contextlib.closing(Bench(server, "queue:", tmp_path)) as bench:
        leave_in_the_middle(bench, 40 if full else 20)
        server.stop()
        (log,) = server.folder.glob("appendonlydir/*.incr.aof")
        size = log.stat().st_size
        numbers = random.Random(4)
        cuts = [numbers.randrange(1, min(TAIL, size)) for _ in range(500 if full else 12)]
        states, problems = set(), {}
        for number, cut in enumerate(sorted(cuts)):
            with contextlib.closing(OwnServer(binary=binary, aof_load_truncated="yes")) as copy:
                shutil.copytree(log.parent, copy.folder / log.parent.name)
                (copied,) = copy.folder.glob("appendonlydir/*.incr.aof")
                with copied.open("r+b") as file:
                    file.truncate(size - cut)
                copy.start()
                state = snapshot(copy)
                states.add(tuple(sorted((item.place, item.operation_id) for item in items_in(state))))
                found = contradictions(state)
                if not found and number % 25 == 7:
                    found = drain(copy, tmp_path / str(number))
                if found:
                    problems[cut] = found
        server.start()  # so that the bench finds what it deletes
    figures(injected=len(cuts), tail_bytes=min(TAIL, size), different_states=len(states), contradictions=len(problems))
    assert not problems
    assert len(states) >= 5, "the cuts hardly changed anything"


def drain(server: OwnServer, folder: Path) -> list[str]:
    """Let a worker run what a server holds, and return the contradictions that are then left."""
    folder.mkdir()
    with contextlib.closing(Bench(server, "queue:", folder)) as bench:
        bench.start_worker(lease=LEASE_S)
        bench.wait_drained(PATIENCE_S)
        state = snapshot(server)
        left = [item for item in items_in(state) if not item.is_dead_letter]
        return contradictions(state) + [f"{item} is left" for item in left]


@pytest.mark.timeout(300)
@on_each_server_in_full
def test_flushall_under_load_stops_no_worker_and_new_operations_run(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None
) -> None:
    bench = open_bench(binary=binary)
    workers = start_workers(bench, 2, lease=LEASE_S)
    ran_s = []
    times = 50 if full else 3
    for number in range(times):
        bench.enqueue(300, processors.work, 0.2, name=f"before-{number}")  # not all done before anybody looks
        wait_until(lambda: len(bench.all_in_flight()) > 4, "work is under way", PATIENCE_S)
        bench.client.flushall()
        ran_s.append(
            wait_ended(bench, bench.enqueue(20, processors.work, 0.0, name=f"new-{number}"), RUN_AGAIN_WITHIN_S)
        )
    bench.wait_drained(PATIENCE_S)
    wait_until(lambda: len(bench.incarnations()) == 2, "both workers are registered", PATIENCE_S)
    found = contradictions(snapshot(bench.server))
    figures(injected=times, recovery_s=round(max(ran_s), 2), contradictions=len(found))
    assert not found
    assert_no_loop_crashed(workers)


@on_each_server_in_full
def test_each_key_deleted_under_load_stops_no_worker_and_new_operations_run(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None
) -> None:
    """What a key held may be lost with it; nothing else is."""
    bench = open_bench(binary=binary)
    workers = start_workers(bench, 2, lease=LEASE_S)
    deleted, ran_s = 0, {}
    for number in range(10 if full else 1):
        for pattern in KEYS:
            name = f"{pattern}-{number}"
            enqueue_one_of_each_kind(bench, name)
            bench.enqueue(100, processors.work, 0.01, name=f"before-{name}")
            if doomed := list(bench.client.scan_iter(match=bench.prefix + pattern, count=1000)):
                deleted += bench.client.delete(*doomed)
            new = bench.enqueue(10, processors.work, 0.0, name=f"new-{name}")
            ran_s[name] = wait_ended(bench, new, RUN_AGAIN_WITHIN_S)
    slowest = max(ran_s, key=lambda name: ran_s[name])
    figures(injected=len(ran_s), recovery_s=round(ran_s[slowest], 2), slowest=slowest, deleted=deleted)
    assert deleted >= len(ran_s) // 2
    assert_no_loop_crashed(workers)


def enqueue_one_of_each_kind(bench: Bench, name: str) -> None:
    """Enqueue what fills the dead letters, the delayed set and the deduplication keys."""
    once = QueueRetryConfig(max_attempts=1)
    bench.enqueue(1, processors.work, 9.0, name=f"late-{name}", timeout=0.02, retry_config=once)
    bench.enqueue(1, processors.work, 0.0, name=f"far-{name}", delay=3600.0, deduplication_key=[name])
    missing = f"{processors.__name__}.missing"
    bench.manager.enqueue_batch([{"id": name}], missing, operation_id=[f"missing-{name}"])


def assert_no_loop_crashed(workers: list[WorkerProcess]) -> None:
    """All workers live, and none has met an error that it did not expect."""
    assert all(worker.alive for worker in workers)
    logs = without_told_tracebacks("\n".join(worker.log for worker in workers))
    for sign in ("Traceback", "unexpectedly", "handling failed", "never retrieved"):
        assert sign not in logs, logs


@on_each_server_in_full
def test_foreign_types_in_place_of_any_key_stop_no_worker_and_lose_nothing_once_they_are_gone(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None
) -> None:
    """While a squatter is there, calls may be refused, typed and whole; the key's own value comes back after it."""
    bench = open_bench(binary=binary)
    workers = start_workers(bench, 2, lease=3 * LEASE_S)
    rounds = [(pattern,) for pattern in KEYS] if full else [KEYS, ("failures",)]
    ran_s, acknowledged = {}, []
    with producing(bench) as producer:
        for patterns in rounds:
            before = f"before-{'-'.join(patterns)}"
            acknowledged += bench.enqueue(200, processors.work, 0.02, name=before)
            wait_until(lambda: len(bench.all_in_flight()) > 4, "work is under way", 5.0)
            taken = squat(bench, patterns)
            time.sleep(SQUAT_S)  # how long they stay
            leave(bench, taken)
            new = bench.enqueue(10, processors.work, 0.0, name=f"new-{before}")
            ran_s[patterns] = wait_ended(bench, new, RUN_AGAIN_WITHIN_S)
            acknowledged += new
    bench.wait_drained(15.0)

    ended, repeated = set(bench.journal.count("end")), bench.journal.repeats()
    acknowledged += producer.acknowledged
    figures(
        injected=len(rounds), lost=len(set(acknowledged) - ended), repeated=repeated,
        recovery_s=round(max(ran_s.values()), 2), refused=len(producer.refused),
    )  # fmt: skip
    assert producer.kinds <= {"WrongKeyTypeError"}
    assert ended == set(acknowledged)
    assert repeated == 0
    assert_no_loop_crashed(workers)


def squat(bench: Bench, patterns: tuple[str, ...]) -> list[str]:
    """Reclaim keys out of the way, put foreign values in their places, and return their names."""
    taken = []
    for pattern in patterns:
        names = [name.decode() for name in bench.client.scan_iter(match=bench.prefix + pattern, count=1000)]
        if pattern == "operation:*":
            names = names[:5]
        for name in names or [bench.prefix + pattern]:
            bench.client.eval(SQUAT, 2, name, f"saved:{name}", SQUATTER)
            taken.append(name)
    return taken


def leave(bench: Bench, taken: list[str]) -> None:
    """Remove the foreign values that are still there, and put back what they had replaced."""
    for name in taken:
        bench.client.eval(LEAVE, 2, name, f"saved:{name}", SQUATTER)
