"""rest.lua: which queues a worker leaves alone, for all to see; claims leave those out, settlements let items wait."""

from __future__ import annotations

from typing import Any

import pytest

from queue_system.broker.replies import Resting
from tests.scripts.support import Broker, W, ids_in, record_of, value_of


@pytest.fixture
def full(broker: Broker) -> Broker:
    """One whose commands keep a single dead letter."""
    broker.commands._max_dead_letters = 1
    return broker


def resting(broker: Broker) -> list[Resting]:
    return list(broker.run(broker.commands.status("0")).resting)


def test_a_note_stands_in_the_status_until_the_queue_is_served_again(broker: Broker) -> None:
    now_ms = broker.now_ms()
    assert broker.run(broker.commands.rest("host:1", [("mails", 30_000, "no module"), ("shop", 1000, "é\t")])) == 2
    notes = {note.queue: note for note in resting(broker)}
    assert (notes["mails"].worker, notes["mails"].reason) == ("host:1", "no module")
    assert 30_000 <= notes["mails"].until_ms - now_ms < 90_000
    assert notes["shop"].reason == "é\t"
    broker.run(broker.commands.rest("host:1", [("mails", 0, "no module")]))
    assert [note.queue for note in resting(broker)] == ["shop"]
    assert broker.client.hget(broker.keys.metrics, "queue_rests") == b"2"


def test_a_note_sent_again_stands_once_and_all_go_when_nobody_renews_them(broker: Broker) -> None:
    for _ in range(2):
        broker.run(broker.commands.rest("host:1", [("mails", 30_000, "no module")]))
    assert broker.client.zcard(broker.keys.resting) == 1
    assert 0 < broker.client.pttl(broker.keys.resting) <= 120_000


def test_old_notes_and_more_than_a_thousand_are_dropped(broker: Broker) -> None:
    broker.client.zadd(broker.keys.resting, {"old\tw\tr": 5})
    broker.run(broker.commands.rest("w", [(f"q{n}", 30_000 + n, "r") for n in range(1100)]))
    assert broker.client.zcard(broker.keys.resting) == 1000
    assert broker.client.zscore(broker.keys.resting, "q1099\tw\tr") is not None


def test_a_claim_of_all_queues_takes_nothing_of_those_left_out_and_wakes_others_for_them(broker: Broker) -> None:
    broker.enqueue("high:a", "1", "2")
    broker.enqueue("normal:b", "3", "4")
    broker.enqueue("normal:c", "5")
    broker.client.delete(broker.keys.wake())
    claimed = broker.claim(9, ["!a", "!c"])
    assert (ids_in(claimed.values), claimed.more, claimed.left_behind) == (["3", "4"], False, True)
    assert broker.score("wake") == 0
    assert (broker.items("high:a"), broker.items("normal:c")) == (["1", "2"], ["5"])
    assert ids_in(broker.claim(9).values) == ["1", "2", "5"]


def test_a_left_out_queue_that_is_empty_is_nothing_left_behind(broker: Broker) -> None:
    broker.client.zadd(broker.keys.prefix + "ready:normal", {"a": 1})
    claimed = broker.claim(9, ["!a", "!unknown"])
    assert (list(claimed.values), claimed.more, claimed.left_behind) == ([], False, False)
    assert broker.score("wake") is None


def test_left_out_queues_take_no_turn_from_the_others(broker: Broker) -> None:
    for name in "abcd":
        broker.enqueue(f"normal:{name}", *(f"{name}{i}" for i in range(3)))
    taken = [v for _ in range(6) for v in broker.claim(1, ["!a", "!c"]).values]
    assert ids_in(taken) == ["b0", "d0", "b1", "d1", "b2", "d2"]


def test_what_waits_aside_comes_back_as_it_was_when_due(broker: Broker) -> None:
    broker.enqueue("normal:a", "1")
    before = broker.client.get(broker.keys.operation("1"))
    token = broker.claim().first_token
    now_ms = broker.now_ms()
    assert broker.settle_one("aside", token, 60_000) == b"d"
    assert broker.settle_one("aside", token, 60_000) == b"l"
    assert (broker.inflight(), broker.census()) == ({}, {"1": 1})
    waiting: Any = broker.client.zrange(broker.keys.delayed, 0, -1, withscores=True)
    assert waiting[0][1] >= now_ms + 60_000
    assert broker.client.get(broker.keys.operation("1")) == before
    broker.make_due()
    assert broker.claim().values == [value_of("normal:a", "1")]


def test_a_declined_item_is_a_dead_letter_while_there_is_room_and_waits_when_there_is_none(full: Broker) -> None:
    broker = full
    broker.enqueue("normal:a", "1", "2")
    first = broker.claim(2).first_token
    record = record_of("rejected", "normal:a")
    assert broker.settle_one("decline", first, "1", record, "", "", b'{"operation_id":"1"}', 60_000) == b"d"
    assert broker.settle_one("decline", first + 1, "2", record, "", "", b'{"operation_id":"2"}', 60_000) == b"k"
    assert broker.client.lrange(broker.keys.system_errors, 0, -1) == [b'{"operation_id":"1"}']
    assert broker.census() == {"1": 1, "2": 1}
    assert broker.client.zcard(broker.keys.delayed) == 1
    assert b"queued" in (broker.client.get(broker.keys.operation("2")) or b"")
    assert broker.client.hget(broker.keys.metrics, "dead_letters_dropped") is None


@pytest.mark.parametrize("verb", ["fail", "reject"])
def test_a_dead_letter_that_pushes_another_out_says_so(full: Broker, verb: str) -> None:
    full.enqueue("normal:a", "1", "2")
    first = full.claim(2).first_token
    codes = [full.settle_one(verb, first + n, str(n), record_of(verb, "normal:a"), "", "", b"letter") for n in range(2)]
    assert codes == [b"d", b"o"]
    assert full.client.hget(full.keys.metrics, "dead_letters_dropped") == b"1"
    assert full.inflight(W) == {}
