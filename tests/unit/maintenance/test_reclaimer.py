"""How many of a fleet watch it. What a reclaimer does with the dead is shown in the script and fault tests."""

from __future__ import annotations

import time

import pytest

from queue_system import QueueConfig
from queue_system.maintenance.reclaimer import Reclaimer

RECLAIMERS = 400
WATCHED_S = 100.0


def draws(incarnations: int) -> list[bool]:
    """Which of many reclaimers rest, once they have watched a fleet of that size for a while."""
    config = QueueConfig(lease_seconds=7.0)
    reclaimers = [Reclaimer(config, config.shard, lambda: "own", lambda: 0) for _ in range(RECLAIMERS)]
    return [reclaimer.decide(time.monotonic() + WATCHED_S, incarnations) for reclaimer in reclaimers]


@pytest.mark.parametrize("incarnations", [1, 8])
def test_in_a_small_fleet_everybody_watches(incarnations: int) -> None:
    assert not any(draws(incarnations))


def test_in_a_large_fleet_some_watch_and_the_others_rest() -> None:
    assert RECLAIMERS / 2 < sum(draws(80)) < RECLAIMERS


def test_nobody_rests_before_having_watched_for_longer_than_a_lease() -> None:
    config = QueueConfig(lease_seconds=7.0)
    reclaimer = Reclaimer(config, config.shard, lambda: "own", lambda: 0)
    started = time.monotonic()
    assert not any(reclaimer.decide(started + second, 10**9) for second in range(10))
    assert reclaimer.decide(started + WATCHED_S, 10**9)


def test_who_watches_does_so_for_ten_leases_before_the_next_draw() -> None:
    config = QueueConfig(lease_seconds=7.0)
    reclaimer = Reclaimer(config, config.shard, lambda: "own", lambda: 0)
    now = time.monotonic() + WATCHED_S
    assert not reclaimer.decide(now, 1)
    assert not any(reclaimer.decide(now + second, 10**9) for second in range(70))
    assert reclaimer.decide(now + 71.0, 10**9)


def test_of_a_large_fleet_about_eight_of_those_who_rest_do_a_round_for_all() -> None:
    """Whoever they are: they are drawn anew in each round, so that no death of some holds the rounds up."""
    config = QueueConfig(lease_seconds=7.0)
    reclaimers = [Reclaimer(config, config.shard, lambda: "own", lambda: 0) for _ in range(RECLAIMERS)]
    for each in reclaimers:
        each.decide(time.monotonic() + WATCHED_S, RECLAIMERS)
    rounds = [[each for each in reclaimers if each.rests and not each.sits_out()] for _ in range(50)]
    assert 4 * 50 < sum(map(len, rounds)) < 16 * 50
    assert len({id(each) for done in rounds for each in done}) > RECLAIMERS / 4


def test_who_watches_does_each_round() -> None:
    config = QueueConfig(lease_seconds=7.0)
    reclaimer = Reclaimer(config, config.shard, lambda: "own", lambda: 0)
    assert not any(reclaimer.sits_out() for _ in range(100))
    assert reclaimer.decide(time.monotonic() + WATCHED_S, 10**9)
    assert all(reclaimer.sits_out() for _ in range(100))
