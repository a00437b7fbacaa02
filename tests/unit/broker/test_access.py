"""Who may try while a server denies access: one part of a worker a second."""

from __future__ import annotations

from queue_system.broker.access import AccessBackoff
from tests.kit.clocks import ManualClock


def test_nobody_waits_for_a_server_that_has_denied_nothing() -> None:
    access = AccessBackoff(ManualClock())
    assert not access.denied
    assert [access.wait_s() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_a_denial_permits_one_try_a_second_however_many_ask() -> None:
    clock = ManualClock()
    access = AccessBackoff(clock)
    access.deny()
    assert access.denied
    assert access.wait_s() == 1.0
    clock.advance(1.0)
    assert [access.wait_s() for _ in range(3)] == [0.0, 1.0, 1.0]
    clock.advance(0.25)
    access.deny()
    assert access.wait_s() == 0.75


def test_an_answer_ends_the_waiting() -> None:
    access = AccessBackoff(ManualClock())
    access.deny()
    access.answer()
    assert not access.denied
    assert access.wait_s() == access.wait_s() == 0.0
