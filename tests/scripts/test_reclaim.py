"""reclaim.lua: what a dead incarnation held runs again or is dead-lettered, each item once, and nothing of it stays."""

from __future__ import annotations

import pytest

from queue_system.broker.requests import Reclaim
from tests.scripts.support import RESULT_TTL_MS, Broker, W, assert_refused, ids_in, item_of, value_of

Q = "normal:a"


@pytest.fixture
def first(broker: Broker) -> int:
    """The first of three tokens that the dead incarnation `W` held; one more item waits."""
    broker.enqueue(Q, "1", "2", "3", key="")
    token = broker.claim(3).first_token
    broker.enqueue(Q, "4")
    broker.add_dead_letter()
    return token


def moved(token: int, operation_id: str, way: str = "next") -> Reclaim:
    return Reclaim(b"%d" % token, value_of(Q, operation_id), way, value_of(Q, operation_id))


def move(broker: Broker, *moves: Reclaim) -> tuple[int, int]:
    moved, left = broker.run(broker.commands.reclaim(W, moves))
    return moved, left


def test_next_goes_to_the_head_and_later_to_the_tail(broker: Broker, first: int) -> None:
    broker.client.delete(broker.keys.wake(), broker.keys.wake("a"), broker.keys.prefix + "ready:normal")
    assert move(broker, moved(first, "1"), moved(first + 1, "2", "later")) == (2, 1)
    assert broker.items(Q) == ["1", "4", "2"]
    assert broker.score("wake") == broker.score("wake:a") == 0
    assert broker.score("ready:normal", "a") is not None
    assert broker.snapshot()["metrics"][b"reclaimed"] == b"2"


def test_what_ran_where_its_worker_died_is_noted_as_queued(broker: Broker, first: int) -> None:
    broker.client.set(broker.keys.operation("1"), b"running\t\t7\tnormal:a\t\t1\t5\t6\tw\n")
    broker.client.set(broker.keys.operation("2"), b"succeeded\t\t7\tnormal:a\t\t1\t5\t6\tw\n")
    for i, id_ in enumerate(("1", "2")):
        assert move(broker, moved(first + i, id_))[0] == 1
    assert broker.client.get(broker.keys.operation("1")) == b"queued\t\t7\tnormal:a\t\t1\t5\t6\tw\n"
    assert broker.client.get(broker.keys.operation("2")) == b"succeeded\t\t7\tnormal:a\t\t1\t5\t6\tw\n"


def test_reject_writes_a_dead_letter_the_record_and_puts_the_callback_next(broker: Broker, first: int) -> None:
    broker.client.hset(broker.keys.prefix + "dedup", "k", "1")
    callback = b"normal:a\n" + item_of("callback")
    rejected = Reclaim(
        b"%d" % first, value_of(Q, "1"), "reject", b"letter", "1", b"record", RESULT_TTL_MS, "k", callback
    )
    assert move(broker, rejected) == (1, 2)
    snapshot = broker.snapshot()
    assert (snapshot["system_errors"], snapshot["operation:1"]) == ([b"letter"], b"record")
    assert 0 < broker.client.pttl(broker.keys.operation("1")) <= RESULT_TTL_MS
    assert broker.items(Q) == ["callback", "4"]
    assert "dedup" not in snapshot
    counters = snapshot["metrics"]
    assert (counters[b"rejected"], counters[b"system_errors"], counters[b"reclaimed"]) == (b"1", b"1", b"1")


def test_a_rejected_item_without_an_id_leaves_the_dead_letter_alone(broker: Broker, first: int) -> None:
    records = {key for key in broker.snapshot() if key.startswith("operation:")}
    assert move(broker, Reclaim(b"%d" % first, value_of(Q, "1"), "reject", b"letter")) == (1, 2)
    snapshot = broker.snapshot()
    assert snapshot["system_errors"] == [b"letter"]
    assert {key for key in snapshot if key.startswith("operation:")} == records
    assert b"rejected" not in snapshot["metrics"]


def test_the_entry_and_the_hash_go_with_the_last_item(broker: Broker, first: int) -> None:
    assert move(broker, *(moved(first + i, str(i + 1)) for i in reversed(range(3)))) == (3, 0)
    assert not {"workers", f"inflight:{W}"} & broker.snapshot().keys()
    assert broker.items(Q) == ["1", "2", "3", "4"]


def test_sent_again_it_moves_nothing_more(broker: Broker, first: int) -> None:
    one = moved(first, "1")
    assert move(broker, one) == (1, 2)
    with broker.unchanged():
        assert move(broker, one) == (0, 2)
        assert move(broker) == (0, 2)


def test_an_item_that_is_not_as_it_was_read_stays(broker: Broker, first: int) -> None:
    with broker.unchanged():
        assert move(broker, moved(first, "2")) == (0, 3)
        assert move(broker, moved(1, "1")) == (0, 3)


def test_a_living_or_unknown_incarnation_keeps_what_it_holds(broker: Broker) -> None:
    broker.enqueue(Q, "1")
    token = broker.claim().first_token
    with broker.unchanged():
        assert move(broker, moved(token, "1")) == (0, 0)
        assert broker.run(broker.commands.reclaim("nobody", ())) == [0, 0]


def test_a_dead_incarnation_that_held_nothing_vanishes_at_once(broker: Broker) -> None:
    broker.add_dead_letter()
    assert move(broker) == (0, 0)
    assert broker.snapshot() == {}


def test_a_list_of_a_foreign_type_sends_the_item_into_the_delayed_set(broker: Broker, first: int) -> None:
    broker.squat(Q)
    assert move(broker, moved(first, "1")) == (1, 2)
    assert ids_in([member for member, _ in broker.snapshot()["delayed"]]) == ["1"]


@pytest.mark.parametrize("key", ["workers", f"inflight:{W}", "system_errors", "delayed", "dedup"])
def test_a_foreign_type_refuses_the_move_before_its_first_write(broker: Broker, first: int, key: str) -> None:
    broker.squat(key)
    assert_refused(broker, broker.commands.reclaim(W, [moved(first, "1")]))


@pytest.mark.parametrize("key", ["registry", "ready:normal", "wake", "wake:a", "metrics"])
def test_a_foreign_type_of_an_index_or_marker_does_not_stop_a_move(broker: Broker, first: int, key: str) -> None:
    broker.squat(key)
    assert move(broker, moved(first, "1")) == (1, 2)
    assert broker.census() == {"1": 1, "2": 1, "3": 1, "4": 1}


@pytest.mark.parametrize("new", [b"no line", b"operation:1\nitem", b"ready:low\nitem"])
def test_a_new_value_of_no_queue_is_kept_and_makes_no_foreign_key(broker: Broker, first: int, new: bytes) -> None:
    before = set(broker.snapshot())
    assert move(broker, Reclaim(b"%d" % first, value_of(Q, "1"), "next", new)) == (1, 2)
    assert set(broker.snapshot()) - before == {"delayed"}


@pytest.mark.parametrize("count", [300, 2500])
def test_following_the_cursor_drains_any_number_of_items(broker: Broker, count: int) -> None:
    """A take-over moves each page that it reads, and comes to an end."""
    padding = "x" * 64
    for start in range(0, count, 500):
        ids = [f"{padding}{i}" for i in range(start, min(start + 500, count))]
        broker.enqueue(Q, *ids)
        broker.claim(len(ids))
    broker.add_dead_letter()
    cursor, left = "0", count
    for _ in range(count):
        cursor, held = broker.run(broker.commands.held(W, cursor))
        _, left = move(broker, *(Reclaim(token, old or b"", "later", old or b"") for token, old in held.items()))
        if left == 0:
            break
    assert left == 0
    assert len(set(broker.items(Q))) == count
    assert f"inflight:{W}" not in broker.snapshot()


def test_what_was_not_read_goes_back_as_it_is(broker: Broker, first: int) -> None:
    """It was too large to be sent: nobody has to send it again."""
    back = Reclaim(b"%d" % first, b"", "back", b"")
    assert move(broker, back, Reclaim(b"1", b"", "back", b"")) == (1, 2)
    assert broker.items(Q)[0] == "1"
    with broker.unchanged():
        assert move(broker, back) == (0, 2)
