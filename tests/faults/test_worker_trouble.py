"""Workers that die at the worst moment, and processors that do to their worker whatever code can do."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from queue_system import QueueRetryConfig
from queue_system.broker.commands import SCRIPTS
from tests.faults.conftest import Figures
from tests.faults.support import processors
from tests.faults.support.bench import Bench, WorkerProcess
from tests.faults.support.hooks import CRASH_POINTS
from tests.kit.waiting import wait_until

LEASE_S = 0.5
RUNS_AND_CALLBACKS = {
    "claim-sent": (1, 1),
    "claim-answered": (1, 1),
    "delivery-taken": (1, 1),
    "run-start": (1, 1),
    "run-end": (2, 1),
    "verdict-put": (2, 1),
    "settle-sent": (1, 1),
    "settle-answered": (1, 1),
    "callback-start": (1, 1),
    "callback-end": (1, 2),
    "callback-settled": (1, 1),
}
"""How often an operation and its callback run when the worker dies there and another takes over."""
RECLAIMERS_DIE_AT = ("declared-dead", "items-reclaimed")
AT_ONCE = 6


def die_at(bench: Bench, point: str, queue: str) -> WorkerProcess:
    """Start a worker that serves one queue until it comes to a crash point."""
    return bench.start_worker(slots=1, lease=LEASE_S, ready=False, queues=[queue], hooks={"die_at": point})


def wait_killed(victims: Sequence[WorkerProcess]) -> None:
    """Wait until all have come to their crash points."""
    for victim in victims:
        assert victim.wait_end(20.0) == -signal.SIGKILL, victim.log


def test_a_death_at_each_crash_point_has_exactly_the_outcome_that_is_laid_down(
    bench: Bench, figures: Figures, full: bool
) -> None:
    points = [*RUNS_AND_CALLBACKS, "beaten"]
    assert {*points, *RECLAIMERS_DIE_AT} == CRASH_POINTS.keys()
    for script in SCRIPTS.values():  # so that what was sent is run, not refused
        bench.client.script_load(script.source)
    rounds, recovery_s = 100 if full else 1, 0.0
    expected: dict[str, tuple[int, int]] = {}
    for turn in range(rounds):
        for first in range(0, len(points), AT_ONCE):
            victims = []
            for point in points[first : first + AT_ONCE]:
                queue, seconds = f"{point}-{turn}", 2.0 if point == "beaten" else 0.0
                (operation,) = bench.enqueue(
                    1, processors.work, seconds, name=queue, queue_name=queue, on_success=processors.on_success
                )
                expected[operation] = RUNS_AND_CALLBACKS.get(point, (2, 1))
                victims.append(die_at(bench, point, queue))
            wait_killed(victims)
            for reclaimer_point in RECLAIMERS_DIE_AT if first == 0 else ():
                wait_killed([die_at(bench, reclaimer_point, "nothing")])
            survivor = bench.start_worker(lease=LEASE_S)
            recovery_s = max(recovery_s, bench.wait_drained(30.0))
            wait_until(lambda: bench.incarnations() == {survivor.incarnation}, "none is left", 5.0)  # noqa: B023
            left = set(bench.client.scan_iter(match=f"{bench.prefix}inflight:*", count=1000))
            assert left <= {f"{bench.prefix}inflight:{survivor.incarnation}".encode()}
            survivor.stop()

    starts, callbacks = bench.journal.count("start"), bench.journal.count("success")
    found = {operation: (starts[operation], callbacks[operation]) for operation in expected}
    figures(
        injected=rounds * len(CRASH_POINTS), lost=len(expected) - len(callbacks), repeated=bench.journal.repeats(),
        recovery_s=f"{recovery_s:.2f} at most", unexpected=sum(found[each] != expected[each] for each in expected),
    )  # fmt: skip
    assert found == expected
    assert bench.counter("processed") == len(expected)
    assert bench.letters("failures") == bench.letters("system_errors") == []


def test_hostile_exits_are_never_taken_for_success_and_the_worker_survives_or_is_replaced(
    bench: Bench, figures: Figures, full: bool
) -> None:
    count, twice = 20 if full else 2, QueueRetryConfig(max_attempts=2, delays=[0.05])
    harmless = ["sys-exit", "interrupt", "unreadable", "foreign", "unserialisable"]
    worker = bench.start_worker(lease=LEASE_S)
    for how in harmless:
        bench.enqueue(count, processors.misbehave, 0.0, name=how, retry_config=twice)
    for how in ("thread-sys-exit", "thread-interrupt"):
        bench.enqueue(count, processors.misbehave_in_thread, 0.0, name=how, retry_config=twice)
    bench.wait_drained(30.0)
    survived = worker.alive
    bench.enqueue(1, processors.misbehave, 0.0, name="os-exit", retry_config=twice)
    ending = worker.wait_end(10.0)
    bench.start_worker(lease=LEASE_S)
    bench.wait_drained(30.0)

    runs, ends, operations = bench.journal.count("start"), bench.journal.count("end"), 7 * count + 1
    figures(
        injected=operations, lost=operations - bench.counter("processed"), repeated=bench.journal.repeats(),
        ending=ending,
    )  # fmt: skip
    assert survived
    assert {each: n for each, n in runs.items() if n != 2} == {f"unserialisable-{i}": 1 for i in range(count)}
    assert set(ends.values()) == {1}
    assert bench.counter("processed") == len(ends) == operations
    assert bench.counter("retried") == 6 * count
    assert bench.counter("reclaimed") == 1, "only the death without a word needed a reclaim"
    assert b"result_error" in bench.client.execute_command("GET", f"{bench.prefix}operation:unserialisable-0")
    assert bench.letters("failures") == bench.letters("system_errors") == []


@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
def test_a_forked_child_that_comes_back_ends_there_and_its_parent_notices_nothing(
    bench: Bench, figures: Figures, full: bool, uvloop: bool
) -> None:
    count = 50 if full else 2
    once = QueueRetryConfig(max_attempts=1)
    worker = bench.start_worker(hooks={"uvloop": uvloop})
    kinds: dict[str, tuple[Callable[..., Any], int]] = {
        "returning": (processors.fork, 0),
        "raising": (processors.fork, 1),
        "exiting": (processors.fork, 3),
        "awaiting": (processors.fork, 0),
        "thread-returning": (processors.fork_in_thread, 0),
        "thread-raising": (processors.fork_in_thread, 1),
        "thread-exiting": (processors.fork_in_thread, 3),
    }
    others = bench.enqueue(200, processors.work, 0.02, priority="high")
    for how, (processor, _) in kinds.items():
        bench.enqueue(count, processor, 0.0, name=how, retry_config=once)
    bench.wait_drained(60.0 if full else 30.0)

    ends = [entry for entry in bench.journal.entries("end") if entry.pid == worker.pid]
    exits = {e.operation_id: e.run for e in ends if e.operation_id not in set(others)}
    children = {entry.pid for entry in bench.journal.entries("child")}
    metrics = worker.stop()
    figures(
        injected=len(children), lost=len(others) + len(kinds) * count - len(ends), repeated=bench.journal.repeats(),
        errors=metrics["errors"], leases_lost=metrics.get("lease_lost", 0),
    )  # fmt: skip
    assert exits == {f"{how}-{i}": code for how, (_, code) in kinds.items() for i in range(count)}
    assert len(children) == len(kinds) * count
    assert {entry.pid for entry in bench.journal.entries("start")} == {worker.pid}, "a child took part"
    assert bench.journal.repeats() == metrics["errors"] == metrics.get("lease_lost", 0) == 0
    assert bench.counter("processed") == len(others) + len(kinds) * count
    assert "server trouble" not in worker.log, "a connection failed"


@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "new"])
def test_a_forked_child_runs_no_step_of_what_else_was_ready_in_its_parent(
    bench: Bench, uvloop: bool, begun: bool
) -> None:
    """A child that awaits goes back to an event loop whose next steps are those of other operations."""
    worker = bench.start_worker(hooks={"uvloop": uvloop})
    bench.enqueue(8, processors.fork_among_others, 0.0 if begun else 1.0)
    bench.wait_drained(30.0)
    worker.stop()
    assert [entry.run for entry in bench.journal.entries("end")] == [0] * 8, worker.log
    steps = [entry.pid for entry in bench.journal.entries("step")]
    assert steps == [worker.pid] * 40, "a child took a step"
    assert len(list(bench.journal.entries("gathered"))) == 8
    assert not list(bench.journal.entries("came back"))


@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("processor", [processors.end_processes, processors.end_processes_in_thread])
def test_processes_that_a_processor_forks_end_on_sigterm(
    bench: Bench, uvloop: bool, processor: Callable[..., Any]
) -> None:
    """The worker's own handler, which asks an event loop to stop, is none of theirs."""
    worker = bench.start_worker(slots=1, hooks={"uvloop": uvloop})
    count, long_s = 3, 60.0
    bench.enqueue(count, processor, long_s)
    bench.wait_drained(30.0)
    ended = [entry.run for entry in bench.journal.entries("end")]
    worker.stop()
    assert ended == [-signal.SIGTERM] * count


@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
def test_a_forked_child_that_lives_on_keeps_no_connection_of_its_dead_parent_open(bench: Bench, uvloop: bool) -> None:
    worker = bench.start_worker(slots=2, hooks={"uvloop": uvloop})
    bench.wait_idle(1)
    bench.enqueue(1, processors.fork_a_survivor, 30.0)
    bench.wait_drained(5.0)
    wait_until(lambda: bench.journal.entries("child"), "the child lives", 5.0)
    (child,) = bench.journal.entries("child")
    try:
        bench.wait_idle(1)
        worker.kill()
        bench.wait_idle(0)
        os.kill(child.pid, 0)  # raises if the child does not live
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("fault", ["errors", "exits", "hangs"])
def test_a_sick_heartbeat_recovers_or_the_worker_starts_nothing_past_its_lease(
    bench: Bench, figures: Figures, fault: str
) -> None:
    lease, operations = 1.0, 100
    sick = bench.start_worker(slots=2, lease=lease, hooks={"heartbeat": fault})
    bench.enqueue(operations, processors.work, 0.05)
    wait_until(lambda: bench.journal.entries("end"), "the sick worker is at work", 5.0)
    other = bench.start_worker(slots=2, lease=lease)
    bench.wait_drained(20.0)
    starts = [entry for entry in bench.journal.entries("start") if entry.pid == sick.pid]
    figures(
        injected=1, lost=operations - bench.counter("processed"), repeated=bench.journal.repeats(),
        started_by_the_sick=len(starts),
    )  # fmt: skip
    assert bench.counter("processed") == operations
    assert bench.journal.repeats() == 0
    if fault != "hangs":
        assert "maintenance task failed unexpectedly" in sick.log
        assert bench.incarnations() == {sick.incarnation, other.incarnation}
        return
    (pulse_ends,) = bench.journal.entries("pulse-ends")
    assert max(entry.at_ns for entry in starts) <= pulse_ends.at_ns + lease * 1e9
    wait_until(lambda: bench.incarnations() == {other.incarnation}, "the sick worker is taken off the books", 5.0)


def test_a_worker_without_free_descriptors_backs_off_and_recovers(bench: Bench, figures: Figures, full: bool) -> None:
    held_s = 10.0 if full else 1.5
    worker = bench.start_worker(slots=2, hooks={"descriptors": 64})
    bench.enqueue(1, processors.exhaust_descriptors, held_s)
    wait_until(lambda: bench.journal.entries("exhausted"), f"no descriptor is free\n{bench.logs()}", 5.0)
    bench.client.client_kill_filter(_type="normal")
    lines_before = len(worker.log.splitlines())
    ids = bench.enqueue(20, processors.work, 0.01, name="later")
    wait_until(
        lambda: bench.journal.count("end")["exhaust_descriptors-0"], "the descriptors are free again", held_s + 5.0
    )
    recovery_s = bench.wait_drained(30.0)

    lines = len(worker.log.splitlines()) - lines_before
    lost = 21 - bench.counter("processed")
    figures(injected=1, lost=lost, repeated=bench.journal.repeats(), recovery_s=round(recovery_s, 2), log_lines=lines)
    assert worker.alive
    assert lost == 0
    assert set(ids) <= set(bench.journal.count("end"))
