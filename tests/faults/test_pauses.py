"""A worker that was frozen past its lease settles nothing twice; one that is merely blocked loses nothing."""

from __future__ import annotations

import signal
import time
from collections import defaultdict

from tests.faults.conftest import Figures
from tests.faults.support import processors
from tests.faults.support.bench import Bench, WorkerProcess
from tests.kit.waiting import wait_until

LEASE_S = 1.0
LONGEST_BLOCK_S = 5.0
NEW_ITEMS_RUN_WITHIN_S = 2.0


def test_late_settlements_of_a_frozen_worker_are_lost_and_each_operation_settles_once(
    bench: Bench, figures: Figures
) -> None:
    frozen = bench.start_worker(slots=4, lease=LEASE_S)
    ids = bench.enqueue(80, processors.work, 0.2, on_success=processors.on_success)
    wait_until(lambda: len(bench.in_flight(frozen.incarnation)) >= 4, "the worker is busy", 5.0)
    other = bench.start_worker(slots=4, lease=LEASE_S)
    frozen.send(signal.SIGSTOP)
    held = bench.in_flight(frozen.incarnation)
    tokens: dict[str, list[int]] = defaultdict(list)
    resume_at = time.monotonic() + 2 * LEASE_S
    while time.monotonic() < resume_at:
        for token, operation_id in bench.all_in_flight().items():
            if token not in tokens[operation_id]:
                tokens[operation_id].append(token)
    frozen.send(signal.SIGCONT)
    bench.wait_drained(10.0)
    wait_until(lambda: "lease lost" in frozen.log, "the frozen worker learns that its lease was lost", 5.0)
    lost = frozen.stop().get("lease_lost", 0)

    grown = {each: tokens[each] for each in held.values() if len(tokens[each]) > 1}
    figures(
        injected=1, lost=len(ids) - bench.counter("processed"), repeated=bench.journal.repeats(),
        held_at_freeze=len(held), lease_lost=lost, refenced=len(grown),
        callbacks=bench.journal.count("success").total(),
    )  # fmt: skip
    assert held
    assert lost >= 1
    assert bench.counter("processed") == len(ids)
    assert set(bench.journal.count("success")) == set(ids)
    assert bench.journal.repeats() <= len(held)
    assert grown, "no operation was seen in flight a second time"
    assert all(seen == sorted(seen) for seen in tokens.values())
    assert bench.letters("failures") == bench.letters("system_errors") == []
    assert other.alive


def test_an_idle_worker_that_was_frozen_goes_on_under_a_new_incarnation(bench: Bench, figures: Figures) -> None:
    frozen, other = freeze_while_idle(bench)
    frozen.send(signal.SIGCONT)
    resumed_s = wait_until(lambda: len(bench.incarnations()) == 2, "it registers anew", 5.0)
    other.stop()
    ids = bench.enqueue(20, processors.work, 0.01)
    ran_s = bench.wait_drained(12.0)
    figures(injected=1, recovery_s=round(ran_s, 2), registered_again_s=round(resumed_s, 2))
    assert set(ids) <= set(bench.journal.count("end"))
    assert ran_s <= NEW_ITEMS_RUN_WITHIN_S


def test_an_idle_worker_that_is_frozen_keeps_no_item_from_the_others(bench: Bench, figures: Figures) -> None:
    freeze_while_idle(bench)
    bench.enqueue(1, processors.work, 0.0)
    ran_s = bench.wait_drained(12.0)
    figures(injected=1, recovery_s=round(ran_s, 2))
    assert ran_s <= LONGEST_BLOCK_S + 1.0


def freeze_while_idle(bench: Bench) -> tuple[WorkerProcess, WorkerProcess]:
    """Freeze one of two idle workers until the other has reclaimed it."""
    frozen = bench.start_worker(slots=2, lease=LEASE_S)
    bench.wait_idle(1)
    other = bench.start_worker(slots=2, lease=LEASE_S)
    bench.wait_idle(2)
    frozen.send(signal.SIGSTOP)
    wait_until(lambda: bench.incarnations() == {other.incarnation}, "the frozen worker is reclaimed", 3 * LEASE_S)
    return frozen, other


def test_a_blocked_event_loop_loses_no_lease_and_nothing_runs_twice(bench: Bench, figures: Figures) -> None:
    blocked = bench.start_worker(slots=4, lease=LEASE_S)
    bench.enqueue(1, processors.block_the_loop, 3 * LEASE_S)
    wait_until(lambda: bench.journal.entries("start"), "the loop is blocked", 5.0)
    other = bench.start_worker(slots=4, lease=LEASE_S)
    bench.enqueue(20, processors.work, 0.01)
    bench.wait_drained(3 * LEASE_S + 5.0)

    repeats, lost = bench.journal.repeats(), blocked.stop().get("lease_lost", 0)
    figures(injected=1, lost=21 - bench.counter("processed"), repeated=repeats, lease_lost=lost)
    assert repeats == lost == bench.counter("reclaimed") == 0
    assert "lease lost" not in blocked.log + other.log
    assert bench.counter("processed") == 21


def test_a_held_gil_loses_the_lease_and_the_late_settlement_settles_nothing(bench: Bench, figures: Figures) -> None:
    workers = [bench.start_worker(slots=2, lease=LEASE_S) for _ in range(2)]
    (operation,) = bench.enqueue(1, processors.hold_the_gil, 3 * LEASE_S)
    wait_until(lambda: bench.journal.entries("start"), "the interpreter is held", 5.0)
    held, other = sorted(workers, key=lambda worker: worker.pid != bench.journal.entries("start")[0].pid)
    wait_until(lambda: bench.journal.count("start")[operation] == 2, f"it runs elsewhere\n{bench.logs()}", 10.0)
    bench.enqueue(20, processors.work, 0.01)
    bench.wait_drained(10.0)
    wait_until(lambda: bench.journal.count("end")[operation] == 2, "the first run ends too", 10.0)
    wait_until(lambda: "lease lost" in held.log, "the held worker learns that its lease was lost", 5.0)

    first, second = bench.journal.entries("start")[:2]
    figures(
        injected=1, lost=21 - bench.counter("processed"), repeated=bench.journal.repeats(),
        recovery_s=round((second.at_ns - first.at_ns) / 1e9, 2), lease_s=LEASE_S,
    )  # fmt: skip
    assert (first.pid, second.pid) == (held.pid, other.pid)
    assert bench.journal.repeats() == 1
    assert bench.counter("processed") == 21
    assert bench.letters("failures") == bench.letters("system_errors") == []


def test_pauses_shorter_than_the_lease_cost_nothing(bench: Bench, figures: Figures, full: bool) -> None:
    lease, pauses = 1.6, 500 if full else 4
    workers = [bench.start_worker(slots=4, lease=lease) for _ in range(2)]
    operations = 0
    for turn in range(pauses):
        paused = workers[turn % 2]
        operations += len(bench.enqueue(100, processors.work, 0.02, name=f"turn-{turn}"))
        wait_until(lambda: bench.in_flight(paused.incarnation), "it is at work", 5.0)  # noqa: B023
        paused.send(signal.SIGSTOP)
        time.sleep(lease / 2)  # the pause itself
        paused.send(signal.SIGCONT)
    bench.wait_drained(10.0)

    lost = [worker.stop().get("lease_lost", 0) for worker in workers]
    figures(
        injected=pauses, lost=operations - bench.counter("processed"), repeated=bench.journal.repeats(),
        leases_lost=sum(lost),
    )  # fmt: skip
    assert bench.counter("processed") == operations
    assert bench.journal.repeats() == bench.counter("reclaimed") == sum(lost) == 0
