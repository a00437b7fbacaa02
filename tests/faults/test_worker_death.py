"""Workers that are killed lose nothing, and an operation that kills its worker harms no other."""

from __future__ import annotations

import random
import threading
import time

from tests.faults.conftest import Figures
from tests.faults.support import processors
from tests.faults.support.bench import Bench
from tests.kit.waiting import wait_until

INNOCENTS = 200


def test_kills_at_random_moments_lose_nothing_and_repeat_only_what_was_in_flight(
    bench: Bench, figures: Figures, full: bool
) -> None:
    operations, kills = (100_000, 200) if full else (3000, 5)
    moments = random.Random(1)
    ids = bench.enqueue(operations, processors.work, 0.005)
    in_flight = []
    for _ in range(kills):
        worker = bench.start_worker()
        time.sleep(moments.uniform(0.02, 0.3))  # the random moment itself
        worker.kill()
        in_flight.append(len(bench.in_flight(worker.incarnation)))
    settled_before = bench.counter("processed")
    for _ in range(4 if full else 1):
        bench.start_worker()
    drained_s = bench.wait_drained(900.0 if full else 30.0)

    lost, repeats = len(set(ids) - set(bench.journal.count("end"))), bench.journal.repeats()
    figures(
        injected=kills, lost=lost, repeated=repeats, operations=operations, in_flight_at_kills=sum(in_flight),
        settled_before_last_start=settled_before, drained_s=round(drained_s, 2),
    )  # fmt: skip
    assert settled_before < operations, "the kills came too late to mean anything"
    assert lost == 0
    assert repeats <= sum(in_flight)
    assert bench.counter("processed") == operations
    assert bench.letters("failures") == bench.letters("system_errors") == []


def test_operations_of_a_killed_worker_run_again_within_one_and_a_half_leases(
    bench: Bench, figures: Figures, full: bool
) -> None:
    lease, slots, recovery_s, turns = 2.0, 5, [], 20 if full else 2
    bench.start_worker(lease=lease, slots=2 * slots)
    for turn in range(turns):
        victim = bench.start_worker(lease=lease, slots=slots)
        bench.enqueue(6 * slots, processors.work, 0.3, name=f"turn-{turn}")
        wait_until(lambda: len(bench.in_flight(victim.incarnation)) >= slots, "the victim is busy", 5.0)  # noqa: B023
        victim.kill()
        killed_ns = time.monotonic_ns()
        held = set(bench.in_flight(victim.incarnation).values())
        bench.wait_drained(10.0)
        again = {e.operation_id: e.at_ns for e in bench.journal.entries("start") if e.at_ns > killed_ns}
        assert held
        assert held <= again.keys()
        recovery_s += [(again[each] - killed_ns) / 1e9 for each in held]

    figures(
        injected=turns, lost=0, repeated=bench.journal.repeats(), recovery_s=f"{max(recovery_s):.2f} at most",
        lease_s=lease,
    )  # fmt: skip
    assert max(recovery_s) <= 1.5 * lease
    assert bench.counter("processed") == turns * 6 * slots


def test_poison_is_dead_lettered_after_four_deliveries_and_no_neighbour_with_it(
    bench: Bench, figures: Figures, full: bool
) -> None:
    kinds = [processors.poison, processors.segfault] * 10 if full else [processors.poison]
    innocents = bench.enqueue(INNOCENTS // 2, processors.work, 0.02)
    poisons = [
        bench.enqueue(1, kind, 0.0, name=f"poison-{i}", on_failure=processors.on_failure, queue_name="work")[0]
        for i, kind in enumerate(kinds)
    ]
    innocents += bench.enqueue(INNOCENTS // 2, processors.work, 0.02, name="later")
    spares = [bench.start_worker(standby=True) for _ in range(5)]
    for spare in spares:  # how long an interpreter takes to start is no matter here
        spare.wait_ready("standing by")
    over = threading.Event()
    lives = []

    def supervise() -> None:
        while not over.is_set():
            worker = spares.pop() if spares else bench.start_worker(ready=False)
            worker.begin()
            lives.append(worker)
            while not over.is_set() and worker.alive:
                over.wait(0.02)

    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    try:
        wait_until(
            lambda: len(bench.journal.entries("failure")) == len(poisons), f"on_failure of all poison\n{bench.logs()}",
            16.0 * len(poisons),
        )  # fmt: skip
        bench.wait_drained(4.0)
    finally:
        over.set()
        supervisor.join()

    starts = bench.journal.count("start")
    deliveries = [starts[poison] for poison in poisons]
    dead_letters = bench.letters("system_errors")
    innocents_repeated = bench.journal.repeats() - sum(deliveries) + len(poisons)
    figures(
        injected=sum(deliveries), lost=len(innocents) - len(bench.journal.count("end")), repeated=innocents_repeated,
        poisons=len(poisons), most_deliveries=max(deliveries), lives=len(lives),
    )  # fmt: skip
    assert all(1 <= each <= 4 for each in deliveries)
    assert sorted(dead_letter["operation_id"] for dead_letter in dead_letters) == sorted(poisons)
    assert {dead_letter["error_type"] for dead_letter in dead_letters} == {"WorkerDied"}
    assert all("died 4 times" in dead_letter["failure_reason"] for dead_letter in dead_letters)
    assert bench.journal.count("failure") == dict.fromkeys(poisons, 1)
    assert set(bench.journal.count("end")) == set(innocents)
    assert bench.counter("processed") == INNOCENTS
    assert bench.letters("failures") == []
