"""Most of a fleet dies at once, all who watched it included: the survivors take over in time, however many they are."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from queue_system import QueueConfig
from queue_system.maintenance.reclaimer import Reclaimer
from tests.faults.conftest import Figures
from tests.faults.support import processors
from tests.faults.support.bench import Bench

DEAD = 60
LEASE_S = 8.0
"""Long beside what a busy machine may hold a thread up: about a quarter of it is left to the bound."""


def survive(bench: Bench, name: str, over: threading.Event) -> None:
    """Beat and do a reclaimer's rounds, from a rest of many leases on, until all is over."""
    config = QueueConfig(redis_url=bench.server.url, queue_prefix=bench.prefix, lease_seconds=LEASE_S)
    run, beat = config.transport.run, config.commands.beat("register", name, int(LEASE_S * 1000))
    reclaimer = Reclaimer(config, config.shard, lambda: name, lambda: time.time_ns() // 1_000_000)
    assert reclaimer.decide(time.monotonic() + 100 * LEASE_S, 10**9), "it rests"
    beaten_at, wait_s = 0.0, 0.0
    with closing(config.transport):
        while not over.wait(min(wait_s, LEASE_S / 8)):
            if time.monotonic() - beaten_at > LEASE_S / 4:
                run(beat)
                beaten_at = time.monotonic()
            wait_s = reclaimer.perform()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("survivors", [1, 30])
def test_what_sixty_dead_workers_held_is_taken_over_within_one_and_a_half_leases(
    bench: Bench, figures: Figures, survivors: int
) -> None:
    run, commands, over = bench.config.transport.run, bench.config.commands, threading.Event()
    bench.enqueue(DEAD, processors.work, 0.0)
    for i in range(DEAD):
        run(commands.beat("register", f"dead{i}", int(LEASE_S * 1000)))
        assert run(commands.claim(f"dead{i}", "c1", 1))
    with ThreadPoolExecutor(survivors) as pool:
        died = time.monotonic()
        futures = [pool.submit(survive, bench, f"survivor{i}", over) for i in range(survivors)]
        while bench.counter("reclaimed") < DEAD and time.monotonic() < died + 5 * LEASE_S:
            time.sleep(0.02)
        took_s = time.monotonic() - died
        over.set()
    for future in futures:
        future.result()
    figures(injected=DEAD, lost=0, survivors=survivors, recovery_s=round(took_s, 2), lease_s=LEASE_S)
    assert bench.counter("reclaimed") == DEAD
    assert took_s <= 1.5 * LEASE_S
