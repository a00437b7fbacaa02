"""drop.lua: dead letters go once, as they were read, and are counted."""

from __future__ import annotations

import pytest

from queue_system.broker.requests import Place
from tests.scripts.support import Broker, assert_refused


def drop(broker: Broker, *dead_letters: bytes, source: str = "failures", number: int = 1) -> bytes:
    return broker.run(broker.commands.drop(Place(source, "c", number, 0, 99), dead_letters))


@pytest.mark.parametrize("source", ["failures", "system_errors"])
def test_the_given_dead_letters_go_and_are_counted(broker: Broker, source: str) -> None:
    broker.client.rpush(broker.keys.prefix + source, "new", "mid", b"\xff\x00", "old")
    assert drop(broker, b"\xff\x00", b"none", b"new", source=source) == b"dgd"
    snapshot = broker.snapshot()
    assert snapshot[source] == [b"mid", b"old"]
    assert snapshot["metrics"] == {b"dead_letters_dropped": b"2"}


def test_sent_again_it_gives_the_same_answer_and_drops_nothing_more(broker: Broker) -> None:
    broker.client.rpush(broker.keys.failures, "x", "x", "x")
    assert drop(broker, b"x", b"none") == b"dg"
    with broker.unchanged():
        assert drop(broker, b"x", b"none") == b"dg"
    assert 0 < broker.client.pttl(f"{broker.keys.prefix}answer:c") <= 300_000


def test_equal_dead_letters_go_one_for_each_time_they_are_named(broker: Broker) -> None:
    broker.client.rpush(broker.keys.failures, "x", "y", "x", "x")
    assert drop(broker, b"x", b"x") == b"dd"
    assert sorted(broker.snapshot()["failures"]) == [b"x", b"y"]


def test_no_dead_letters_and_no_list_leave_only_the_answer(broker: Broker) -> None:
    before = broker.snapshot()
    assert (drop(broker), drop(broker, b"x", number=2)) == (b"", b"g")
    assert broker.snapshot() == {**before, "answer:c": b"2 g"}


def test_foreign_types(broker: Broker) -> None:
    """A list of a foreign type refuses the call; counters of a foreign type do not stop it."""
    broker.squat("failures")
    assert_refused(broker, broker.commands.drop(Place("failures", "c", 1, 0, 9), [b"x"]))
    broker.squat("metrics")
    broker.client.rpush(broker.keys.system_errors, "x")
    assert drop(broker, b"x", source="system_errors") == b"d"
