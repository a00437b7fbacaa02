"""Workers that are killed lose nothing, and an operation that kills its worker harms no other."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from tests.faults.conftest import Figures
from tests.faults.support import processors
from tests.faults.support.bench import Bench, WorkerProcess, wait_until

OPERATIONS = 3000
KILLS = 4


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_lose_nothing_and_repeat_only_what_was_in_flight(
    bench: Bench, figures: Figures, seed: int
) -> None:
    moments = random.Random(seed)
    ids = bench.enqueue(OPERATIONS, processors.work, 0.005)
    in_flight_at_kills = 0
    for _ in range(KILLS):
        worker = bench.start_worker()
        (incarnation,) = {each for each in bench.incarnations() if not bench.in_flight(each)} or {""}
        time.sleep(moments.uniform(0.02, 0.3))
        worker.kill()
        in_flight_at_kills += _held_by_the_dead(bench) - in_flight_at_kills
        assert incarnation is not None
    assert bench.counter("processed") < OPERATIONS, "the kills came too late to mean anything"
    bench.start_worker()
    drained_s = bench.wait_drained(15.0)

    ended = bench.journal.count("end")
    lost, repeats = len(set(ids) - set(ended)), bench.journal.repeats()
    figures(seed=seed, lost=lost, repeats=repeats, in_flight_at_kills=in_flight_at_kills, drained_s=round(drained_s, 2))
    assert lost == 0
    assert repeats <= in_flight_at_kills
    assert bench.counter("processed") == OPERATIONS
    assert bench.letters("failures") == bench.letters("system_errors") == []
