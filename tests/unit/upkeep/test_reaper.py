"""How many of a fleet watch it. What a reaper does with the dead is shown in the script and fault tests."""

from __future__ import annotations

import pytest

from queue_system import QueueConfig
from queue_system.upkeep.reaper import Reaper

REAPERS = 400


def waits(incarnations: int) -> list[float]:
    """How long each of many reapers waits after its first look at a fleet of that size."""
    config = QueueConfig(lease_seconds=7.0)
    reapers = [Reaper(config, lambda: "own", lambda: 0) for _ in range(REAPERS)]
    return [reaper.next_wait_s(100.0, incarnations) for reaper in reapers]


@pytest.mark.parametrize("incarnations", [1, 8])
def test_in_a_small_fleet_everybody_watches(incarnations: int) -> None:
    assert set(waits(incarnations)) == {1.0}


def test_in_a_large_fleet_some_watch_and_the_others_rest_for_ten_leases() -> None:
    assert set(waits(80)) == {1.0, 70.0}
    assert waits(80).count(1.0) < REAPERS / 2


def test_who_watches_does_so_for_ten_leases_before_the_next_draw() -> None:
    reaper = Reaper(QueueConfig(lease_seconds=7.0), lambda: "own", lambda: 0)
    assert reaper.next_wait_s(100.0, 1) == 1.0
    assert {reaper.next_wait_s(100.0 + second, 10**9) for second in range(70)} == {1.0}
    assert reaper.next_wait_s(170.0, 10**9) == 70.0
