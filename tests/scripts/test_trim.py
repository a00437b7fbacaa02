"""trim.lua: dead letters go as they were read, from the old end, and are counted."""

from __future__ import annotations

import pytest

from tests.scripts.support import Broker, assert_refused


@pytest.mark.parametrize("dead_letters", ["failures", "system_errors"])
def test_the_given_letters_go_and_are_counted(broker: Broker, dead_letters: str) -> None:
    broker.client.rpush(broker.keys.prefix + dead_letters, "new", "mid", "old")
    assert broker.run(broker.commands.letters(dead_letters, -2, -1)) == [b"mid", b"old"]
    assert broker.run(broker.commands.trim(dead_letters, [b"mid", b"old", b"unknown"])) == 2
    snapshot = broker.snapshot()
    assert snapshot[dead_letters] == [b"new"]
    assert snapshot["metrics"] == {b"dead_letters_dropped": b"2"}


def test_sent_again_it_drops_nothing_more(broker: Broker) -> None:
    broker.client.rpush(broker.keys.failures, "new", "old")
    broker.run(broker.commands.trim("failures", [b"old"]))
    before = broker.snapshot()
    assert broker.run(broker.commands.trim("failures", [b"old"])) == 0
    assert broker.snapshot() == before


def test_equal_letters_go_one_for_each_time_they_were_read_the_oldest_first(broker: Broker) -> None:
    broker.client.rpush(broker.keys.failures, "x", "y", "x", "x")
    assert broker.run(broker.commands.trim("failures", [b"x", b"x"])) == 2
    assert broker.snapshot()["failures"] == [b"x", b"y"]


def test_no_letters_and_no_list_change_nothing(broker: Broker) -> None:
    before = broker.snapshot()
    assert broker.run(broker.commands.trim("failures", [])) == 0
    assert broker.run(broker.commands.trim("failures", [b"x"])) == 0
    assert broker.snapshot() == before


def test_letters_of_any_bytes_go(broker: Broker) -> None:
    letter = b"\xff\x00\r\n"
    broker.client.rpush(broker.keys.failures, letter)
    assert broker.run(broker.commands.trim("failures", [letter])) == 1


def test_foreign_types(broker: Broker) -> None:
    """A list of a foreign type refuses the call; counters of a foreign type do not stop it."""
    broker.squat("failures")
    assert_refused(broker, broker.commands.trim("failures", [b"x"]))
    broker.squat("metrics")
    broker.client.rpush(broker.keys.system_errors, "x")
    assert broker.run(broker.commands.trim("system_errors", [b"x"])) == 1
