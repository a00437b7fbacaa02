"""declare_dead.lua: only an incarnation that has not beaten since it was observed is declared dead."""

from __future__ import annotations

from tests.scripts.support import LEASE_MS, Broker, W, assert_refused


def test_the_entry_as_observed_moves_to_the_dead(broker: Broker) -> None:
    assert broker.run(broker.commands.declare_dead(W, b"1:15000"))
    assert broker.run(broker.commands.incarnations()) == {f"dead:{W}": b"1:15000"}


def test_an_incarnation_that_beat_meanwhile_stays(broker: Broker) -> None:
    broker.run(broker.commands.beat("beat", W, LEASE_MS))
    with broker.unchanged():
        assert not broker.run(broker.commands.declare_dead(W, b"1:15000"))


def test_an_incarnation_that_left_or_never_was_is_not_declared_dead(broker: Broker) -> None:
    broker.run(broker.commands.beat("leave", W, LEASE_MS))
    with broker.unchanged():
        for incarnation in (W, "nobody"):
            assert not broker.run(broker.commands.declare_dead(incarnation, b"1:15000"))
            assert not broker.run(broker.commands.declare_dead(incarnation, b""))


def test_sent_again_it_changes_nothing(broker: Broker) -> None:
    broker.run(broker.commands.declare_dead(W, b"1:15000"))
    with broker.unchanged():
        assert not broker.run(broker.commands.declare_dead(W, b"1:15000"))


def test_a_worker_whose_entry_makes_no_sense_can_be_declared_dead(broker: Broker) -> None:
    broker.client.hset(broker.keys.workers, W, b"\xff\n")
    assert broker.run(broker.commands.declare_dead(W, b"\xff\n"))


def test_a_foreign_type_refuses_it(broker: Broker) -> None:
    broker.squat("workers")
    assert_refused(broker, broker.commands.declare_dead(W, b"1:15000"))
