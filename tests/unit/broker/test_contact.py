"""Who may try while a server denies access: one part of a worker a second."""

from __future__ import annotations

from queue_system.broker.contact import Contact
from tests.kit.clocks import ManualClock


def test_nobody_waits_for_a_server_that_has_denied_nothing() -> None:
    contact = Contact(ManualClock())
    assert not contact.denied
    assert [contact.wait_s() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_a_denial_permits_one_try_a_second_however_many_ask() -> None:
    clock = ManualClock()
    contact = Contact(clock)
    contact.deny()
    assert contact.denied
    assert contact.wait_s() == 1.0
    clock.advance(1.0)
    assert [contact.wait_s() for _ in range(3)] == [0.0, 1.0, 1.0]
    clock.advance(0.25)
    contact.deny()
    assert contact.wait_s() == 0.75


def test_an_answer_ends_the_waiting() -> None:
    contact = Contact(ManualClock())
    contact.deny()
    contact.answer()
    assert not contact.denied
    assert contact.wait_s() == contact.wait_s() == 0.0
