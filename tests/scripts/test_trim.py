"""aged.lua and trim.lua: dead letters are read and go from the old end, as they were read, and are counted."""

from __future__ import annotations

import pytest

from queue_system.model.dead_letter import LARGE_END, read_time
from tests.scripts.support import Broker, assert_refused


@pytest.mark.parametrize("dead_letters", ["failures", "system_errors"])
def test_the_given_dead_letters_go_and_are_counted(broker: Broker, dead_letters: str) -> None:
    broker.client.rpush(broker.keys.prefix + dead_letters, "new", "mid", "old")
    assert broker.run(broker.commands.aged(dead_letters, 0)) == [b"old", b"mid", b"new"]
    assert broker.run(broker.commands.trim(dead_letters, [(0, b"old"), (0, b"mid"), (0, b"unknown")])) == 2
    snapshot = broker.snapshot()
    assert snapshot[dead_letters] == [b"new"]
    assert snapshot["metrics"] == {b"dead_letters_dropped": b"2"}


def test_dead_letters_behind_kept_ones_go_and_those_stay_in_their_order(broker: Broker) -> None:
    broker.client.rpush(broker.keys.failures, "new", "x3", "keep2", "x2", "x1", "keep1", "x0")
    expired = [(0, b"x0"), (1, b"x1"), (1, b"x2"), (2, b"x3")]
    assert broker.run(broker.commands.aged("failures", 2)) == [b"x1", b"x2", b"keep2", b"x3", b"new"]
    assert broker.run(broker.commands.trim("failures", expired)) == 4
    assert broker.snapshot()["failures"] == [b"new", b"keep2", b"keep1"]


def test_sent_again_it_drops_nothing_more(broker: Broker) -> None:
    broker.client.rpush(broker.keys.failures, "new", "old")
    broker.run(broker.commands.trim("failures", [(0, b"old")]))
    with broker.unchanged():
        assert broker.run(broker.commands.trim("failures", [(0, b"old")])) == 0


def test_what_another_worker_has_dropped_meanwhile_is_looked_for_nowhere_else(broker: Broker) -> None:
    broker.client.rpush(broker.keys.failures, "x", "new", "y", "old")
    broker.client.rpop(broker.keys.failures)
    assert broker.run(broker.commands.trim("failures", [(0, b"old"), (0, b"y"), (0, b"x")])) == 1
    assert broker.snapshot()["failures"] == [b"x", b"new"]


def test_equal_dead_letters_go_one_for_each_time_they_were_read(broker: Broker) -> None:
    broker.client.rpush(broker.keys.failures, "x", "y", "x", "x")
    assert broker.run(broker.commands.trim("failures", [(0, b"x"), (0, b"x"), (0, b"x")])) == 2
    assert broker.snapshot()["failures"] == [b"x", b"y"]


def test_no_dead_letters_and_no_list_change_nothing(broker: Broker) -> None:
    with broker.unchanged():
        assert broker.run(broker.commands.aged("failures", 0)) == []
        assert broker.run(broker.commands.trim("failures", [])) == 0
        assert broker.run(broker.commands.trim("failures", [(0, b"x")])) == 0


def test_dead_letters_of_any_bytes_go(broker: Broker) -> None:
    dead_letter = b"\xff\x00\r\n"
    broker.client.rpush(broker.keys.failures, "", dead_letter, "", dead_letter)
    assert broker.run(broker.commands.trim("failures", [(0, dead_letter), (1, dead_letter)])) == 2
    assert broker.snapshot()["failures"] == [b"", b""]


def test_of_a_large_dead_letter_the_end_is_read_and_tells_its_time(broker: Broker) -> None:
    dead_letter = b'{"raw_base64":"%b","failure_reason":"x","failed_at":12.5,"queue":"low:a"}' % (b"A" * 2_000_000)
    broker.client.rpush(broker.keys.failures, dead_letter, dead_letter)
    read = broker.run(broker.commands.aged("failures", 0))
    assert [len(each) for each in read] == [LARGE_END, LARGE_END]
    assert read_time(read[0]) == 12.5
    assert broker.run(broker.commands.trim("failures", [(0, read[0])])) == 1
    assert broker.client.llen(broker.keys.failures) == 1


def test_no_more_than_eight_mebibytes_are_read_at_once(broker: Broker) -> None:
    for _ in range(30):
        broker.client.rpush(broker.keys.failures, b"x" * 1_000_000)
    assert len(broker.run(broker.commands.aged("failures", 0))) == 9
    assert len(broker.run(broker.commands.aged("failures", 25))) == 5


def test_dead_letters_that_are_gone_are_looked_for_at_the_end_only(broker: Broker) -> None:
    """A walk through all dead letters for each of them kept the server busy for seconds."""
    broker.client.rpush(broker.keys.failures, *[f"letter{i}" for i in range(1000)])
    with broker.counting() as walks:
        assert broker.run(broker.commands.trim("failures", [(0, b"gone%d" % i) for i in range(100)])) == 0
    assert walks["lrem"] == 0


def test_foreign_types(broker: Broker) -> None:
    """A list of a foreign type refuses the call; counters of a foreign type do not stop it."""
    broker.squat("failures")
    assert_refused(broker, broker.commands.aged("failures", 0))
    assert_refused(broker, broker.commands.trim("failures", [(0, b"x")]))
    broker.squat("metrics")
    broker.client.rpush(broker.keys.system_errors, "x")
    assert broker.run(broker.commands.trim("system_errors", [(0, b"x")])) == 1
