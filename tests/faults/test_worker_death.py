"""Workers that are killed lose nothing, and an operation that kills its worker harms no other."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from tests.faults.conftest import Figures
from tests.faults.support import processors
from tests.faults.support.bench import Bench, wait_until

OPERATIONS = 3000
KILLS = 4
INNOCENTS = 200


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_lose_nothing_and_repeat_only_what_was_in_flight(
    bench: Bench, figures: Figures, seed: int
) -> None:
    moments = random.Random(seed)
    ids = bench.enqueue(OPERATIONS, processors.work, 0.005)
    in_flight = []
    for _ in range(KILLS):
        worker = bench.start_worker()
        time.sleep(moments.uniform(0.02, 0.3))  # the random moment itself
        worker.kill()
        in_flight.append(len(bench.in_flight(worker.incarnation)))
    settled_before = bench.counter("processed")
    bench.start_worker()
    drained_s = bench.wait_drained(15.0)

    lost, repeats = len(set(ids) - set(bench.journal.count("end"))), bench.journal.repeats()
    figures(
        seed=seed, lost=lost, repeats=repeats, in_flight_at_kills=in_flight,
        settled_before_last_start=settled_before, drained_s=round(drained_s, 2),
    )  # fmt: skip
    assert settled_before < OPERATIONS, "the kills came too late to mean anything"
    assert lost == 0
    assert repeats <= sum(in_flight)
    assert bench.counter("processed") == OPERATIONS
    assert bench.letters("failures") == bench.letters("system_errors") == []


def test_operations_of_a_killed_worker_run_again_within_one_and_a_half_leases(bench: Bench, figures: Figures) -> None:
    lease, slots, recovery_s = 2.0, 5, []
    bench.start_worker(lease=lease, slots=2 * slots)
    for turn in range(2):
        victim = bench.start_worker(lease=lease, slots=slots)
        bench.enqueue(6 * slots, processors.work, 0.3, name=f"turn-{turn}")
        wait_until(lambda: len(bench.in_flight(victim.incarnation)) >= slots, 5.0, "the victim is busy")  # noqa: B023
        victim.kill()
        killed_ns = time.monotonic_ns()
        held = set(bench.in_flight(victim.incarnation).values())
        bench.wait_drained(10.0)
        again = {e.operation_id: e.at_ns for e in bench.journal.entries("start") if e.at_ns > killed_ns}
        assert held
        assert held <= again.keys()
        recovery_s += [(again[each] - killed_ns) / 1e9 for each in held]

    figures(lease_s=lease, recovery_s=[round(each, 2) for each in sorted(recovery_s)])
    assert max(recovery_s) <= 1.5 * lease
    assert bench.counter("processed") == 2 * 6 * slots


def test_poison_is_dead_lettered_after_four_deliveries_and_no_neighbour_with_it(bench: Bench, figures: Figures) -> None:
    innocents = bench.enqueue(INNOCENTS // 2, processors.work, 0.02)
    (poison,) = bench.enqueue(1, processors.poison, 0.0, on_failure=processors.on_failure, queue_name="work")
    innocents += bench.enqueue(INNOCENTS // 2, processors.work, 0.02, name="later")
    over = threading.Event()
    lives = []

    def supervise() -> None:
        while not over.is_set():
            worker = bench.start_worker(ready=False)
            lives.append(worker)
            while not over.is_set() and worker.alive:
                over.wait(0.02)

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    try:
        wait_until(lambda: bench.journal.entries("failure"), 16.0, f"on_failure of the poison\n{bench.logs()}")
        bench.wait_drained(4.0)
    finally:
        over.set()
        supervisor.join()

    starts, ends = bench.journal.count("start"), bench.journal.count("end")
    deliveries = starts.pop(poison)
    figures(deliveries=deliveries, lives=len(lives), innocents_repeated=bench.journal.repeats() - deliveries + 1)
    (letter,) = bench.letters("system_errors")
    assert 1 <= deliveries <= 4
    assert (letter["operation_id"], letter["error_type"]) == (poison, "WorkerDied")
    assert "died 4 times" in letter["failure_reason"]
    assert bench.journal.count("failure") == {poison: 1}
    assert set(ends) == set(innocents)
    assert bench.counter("processed") == INNOCENTS
    assert bench.letters("failures") == []


def test_a_killed_worker_leaves_no_trace_once_its_operations_have_run_again(bench: Bench) -> None:
    victim = bench.start_worker(slots=2)
    bench.enqueue(2, processors.work, 0.5)
    wait_until(lambda: len(bench.in_flight(victim.incarnation)) == 2, 5.0, "both are in flight")
    victim.send(signal.SIGKILL)
    survivor = bench.start_worker(slots=2)
    bench.wait_drained(6.0)
    wait_until(lambda: bench.incarnations() == {survivor.incarnation}, 3.0, "the dead incarnation is gone")
    assert not bench.client.exists(f"{bench.prefix}inflight:{victim.incarnation}")
