"""How many of a fleet watch it. What a reaper does with the dead is shown in the script and fault tests."""

from __future__ import annotations

import time

import pytest

from queue_system import QueueConfig
from queue_system.upkeep.reaper import Reaper

REAPERS = 400
WATCHED_S = 100.0


def waits(incarnations: int) -> list[float]:
    """How long each of many reapers waits, once it has watched a fleet of that size for a while."""
    config = QueueConfig(lease_seconds=7.0)
    reapers = [Reaper(config, lambda: "own", lambda: 0) for _ in range(REAPERS)]
    return [reaper.next_wait_s(time.monotonic() + WATCHED_S, incarnations) for reaper in reapers]


@pytest.mark.parametrize("incarnations", [1, 8])
def test_in_a_small_fleet_everybody_watches(incarnations: int) -> None:
    assert set(waits(incarnations)) == {1.0}


def test_in_a_large_fleet_some_watch_and_the_others_rest_for_ten_leases() -> None:
    assert set(waits(80)) == {1.0, 70.0}
    assert waits(80).count(1.0) < REAPERS / 2


def test_nobody_rests_before_having_watched_for_longer_than_a_lease() -> None:
    reaper = Reaper(QueueConfig(lease_seconds=7.0), lambda: "own", lambda: 0)
    started = time.monotonic()
    assert {reaper.next_wait_s(started + second, 10**9) for second in range(10)} == {1.0}
    assert reaper.next_wait_s(started + WATCHED_S, 10**9) == 70.0
    assert {reaper.next_wait_s(started + WATCHED_S + 70.0 + second, 10**9) for second in range(10)} == {1.0}


def test_who_watches_does_so_for_ten_leases_before_the_next_draw() -> None:
    reaper = Reaper(QueueConfig(lease_seconds=7.0), lambda: "own", lambda: 0)
    now = time.monotonic() + WATCHED_S
    assert reaper.next_wait_s(now, 1) == 1.0
    assert {reaper.next_wait_s(now + second, 10**9) for second in range(70)} == {1.0}
    assert reaper.next_wait_s(now + 81.0, 10**9) == 70.0
