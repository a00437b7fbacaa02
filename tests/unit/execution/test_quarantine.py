"""A process belongs to suspects and to all others in turn, by a clock of this test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from queue_system.execution.quarantine import PATIENCE_S, Quarantine, Seat
from tests.kit.clocks import ManualClock


class Place:
    """An isolation, and one worker that holds other work all the time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = ManualClock()
        self.isolation = Quarantine(self.clock.monotonic)
        self.seat = self._seat(loop)
        self.other = self._seat(loop)

    def _seat(self, loop: asyncio.AbstractEventLoop) -> Seat:
        return self.isolation.seat(loop, lambda: True, lambda: None)

    def asks(self) -> bool:
        return self.isolation.ask(self.seat, empty=False)

    def serve(self, wait_s: float, run_s: float) -> None:
        """Let a suspect wait for the process and run."""
        assert self.asks()
        self.clock.advance(wait_s)
        self.isolation.begin()
        self.clock.advance(run_s)
        self.isolation.end(self.seat, in_vain=False)


@pytest.fixture
def place() -> Iterator[Place]:
    loop = asyncio.new_event_loop()
    yield Place(loop)
    loop.close()


def test_after_a_suspect_the_others_have_the_process_for_as_long_as_it_was_kept_from_them(place: Place) -> None:
    place.serve(0.2, 0.3)
    assert place.isolation.rest_s() == pytest.approx(0.5)
    place.clock.advance(0.4)
    assert not place.asks()
    place.clock.advance(0.2)
    assert place.asks()


def test_after_a_wait_in_vain_they_have_it_four_times_as_long(place: Place) -> None:
    assert place.asks()
    place.clock.advance(PATIENCE_S + 0.01)
    assert place.isolation.is_overdue()
    place.isolation.end(place.seat, in_vain=True)
    assert place.isolation.rest_s() == pytest.approx(4 * (PATIENCE_S + 0.01))


def test_who_could_start_late_is_followed_by_one_that_may_wait_as_long(place: Place) -> None:
    """Else each first wait would be in vain where the others need longer than the shortest patience."""
    place.serve(2 * PATIENCE_S, 0.0)
    place.clock.advance(10.0)
    assert place.asks()
    place.clock.advance(3 * PATIENCE_S)
    assert not place.isolation.is_overdue()


def test_patience_shrinks_again_where_a_suspect_could_start_at_once(place: Place) -> None:
    for wait_s in (2 * PATIENCE_S, 0.0):
        place.serve(wait_s, 0.0)
        place.clock.advance(10.0)
    assert place.asks()
    place.clock.advance(1.1 * PATIENCE_S)
    assert place.isolation.is_overdue()


def test_suspects_follow_each_other_for_a_while_however_long_the_first_had_to_wait(place: Place) -> None:
    assert place.asks()
    place.clock.advance(5.0)
    place.isolation.begin()
    place.clock.advance(0.2)
    assert place.isolation.may_go_on()
    place.isolation.begin()
    place.clock.advance(0.1)
    assert not place.isolation.may_go_on()
