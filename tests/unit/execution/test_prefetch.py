"""How much is claimed ahead: nothing while nothing is known, little for long work, more for short work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.execution.prefetch import LARGEST_TURN, WINDOW_S, Prefetch

durations = st.floats(min_value=0, max_value=1e6)


def starved(slots: int, duration_s: float, turns: int = 20) -> Prefetch:
    prefetch = Prefetch(slots)
    prefetch.observe_runs([duration_s])
    for _ in range(turns):
        prefetch.observe_starving()
    return prefetch


def test_nothing_is_claimed_ahead_while_nothing_is_known() -> None:
    prefetch = Prefetch(4)
    assert prefetch.allowance == 0
    prefetch.observe_starving()
    prefetch.observe_runs([])
    prefetch.observe_running(9.0)
    assert prefetch.allowance == 0


def test_it_grows_only_while_slots_starve() -> None:
    prefetch = Prefetch(4)
    prefetch.observe_runs([0.0001])
    assert prefetch.allowance == 0
    grown = []
    for _ in range(3):
        prefetch.observe_starving()
        grown.append(prefetch.allowance)
    assert grown == [4, 8, 16]


@pytest.mark.parametrize("slots, duration_s, most", [(1, 0.001, 20), (5, 0.01, 10), (1, 1.0, 0), (5, 60.0, 0)])
def test_no_more_is_claimed_ahead_than_runs_within_the_window(slots: int, duration_s: float, most: int) -> None:
    assert starved(slots, duration_s).allowance == most


def test_it_never_exceeds_one_claim() -> None:
    assert starved(100, 0.0, turns=50).allowance == 2 * LARGEST_TURN


def test_a_long_operation_that_still_runs_ends_it() -> None:
    prefetch = starved(1, 0.0001)
    assert prefetch.allowance > 0
    prefetch.observe_running(WINDOW_S / 2)
    assert prefetch.allowance > 0
    prefetch.observe_running(5.0)
    assert prefetch.allowance == 0


def test_work_that_had_to_wait_shrinks_it() -> None:
    prefetch = starved(1, 0.0001)
    before = prefetch.allowance
    prefetch.observe_wait(WINDOW_S / 2)
    assert prefetch.allowance == before
    for _ in range(20):
        prefetch.observe_wait(1.0)
    assert prefetch.allowance == 0


def test_the_estimate_follows_the_work() -> None:
    prefetch = starved(1, 1.0)
    for _ in range(60):
        prefetch.observe_runs([0.0001, 0.0001])
    assert prefetch.allowance > 50


@pytest.mark.parametrize("slots, duration_s, gather_s", [(5, 0.020, 0.005), (50, 0.020, 0.005), (5, 0.5, 0.010)])
def test_settlements_wait_for_a_quarter_of_a_run_and_10_ms_at_most(
    slots: int, duration_s: float, gather_s: float
) -> None:
    assert starved(slots, duration_s).gather_s(0, 1, 1) == pytest.approx(gather_s)


@pytest.mark.parametrize("free, waiting, unsettled", [(0, 0, 1), (2, 2, 1), (5, 4, 0), (0, 3, 5), (0, 3, 9)])
def test_settlements_do_not_wait_where_slots_would_starve_or_all_ended_together(
    free: int, waiting: int, unsettled: int
) -> None:
    assert starved(5, 0.020).gather_s(free, waiting, unsettled) == 0


@pytest.mark.parametrize("duration_s", [0.0, 0.0001, 0.001])
def test_settlements_of_short_work_wait_for_a_moment_at_most(duration_s: float) -> None:
    assert Prefetch(5).gather_s(0, 9, 1) == 0
    assert starved(5, duration_s).gather_s(0, 9, 1) <= 0.002


def test_settlements_wait_for_a_moment_where_much_short_work_is_at_hand() -> None:
    prefetch = starved(100, 0.0)
    assert prefetch.gather_s(0, 700, 99) == pytest.approx(0.002)
    assert prefetch.gather_s(0, 700, 100) == 0
    assert prefetch.gather_s(0, 100, 1) == 0


def test_what_a_free_slot_is_about_to_take_keeps_no_claim_from_the_turn_that_settles() -> None:
    one_slot = starved(1, 0.020)
    assert one_slot.allowance == 1
    assert one_slot.room(1, 1) == 1
    assert one_slot.room(0, 1) == 0
    assert starved(5, 0.020).room(3, 5) == 3


@given(st.integers(1, 500), st.lists(st.one_of(durations.map(lambda d: [d]), durations, st.none())))
def test_it_always_is_a_number_from_0_to_1000(slots: int, events: list[list[float] | float | None]) -> None:
    prefetch = Prefetch(slots)
    for event in events:
        if isinstance(event, list):
            prefetch.observe_runs(event)
        elif event is None:
            prefetch.observe_starving()
        else:
            prefetch.observe_wait(event)
            prefetch.observe_running(event)
        assert 0 <= prefetch.allowance <= 1000
