"""retry.lua: dead letters go back into their queues once, as what they were read for; no live operation is doubled."""

from __future__ import annotations

import pytest

from queue_system.broker.requests import Place
from queue_system.model.dead_letter import Requeue
from tests.scripts.support import DEDUP_TTL_MS, Broker, assert_refused, assert_whole, ids_in, item_of, record_of

Q = "normal:a"


def letter_of(operation_id: str) -> bytes:
    return b'{"operation_id":"%b","failure_reason":"boom"}' % operation_id.encode()


def requeue_of(operation_id: str, *, queue: str = Q, key: str = "", untold: str = "", record: bool = True) -> Requeue:
    """Return what the letter of an operation becomes again."""
    named = operation_id if record else ""
    return Requeue(letter_of(operation_id), queue, item_of(operation_id), named, key, untold)


def add_dead_letter(broker: Broker, *ids: str) -> None:
    """Put letters into `failures`, the oldest first."""
    broker.client.lpush(broker.keys.failures, *map(letter_of, ids))


def retry(
    broker: Broker, *requeues: Requeue, number: int = 1, call: str = "c", lowest: int = 0, highest: int = 99
) -> bytes:
    place = Place("failures", call, number, lowest, highest)
    return broker.run(broker.commands.retry(place, "new", DEDUP_TTL_MS, requeues))


def letters(broker: Broker) -> list[str]:
    """Return the ids in `failures`, the newest first."""
    return ids_in(broker.snapshot().get("failures", []))


def test_letters_run_again_in_the_order_given_and_the_rest_stays(broker: Broker) -> None:
    add_dead_letter(broker, "1", "2", "3", "4")
    broker.client.set(broker.keys.operation("1"), record_of("failed", Q, nonce="old"), px=1000)
    assert retry(broker, requeue_of("1"), requeue_of("3", queue="high:b")) == b"dd"
    assert letters(broker) == ["4", "2"]
    assert (broker.items(Q), broker.items("high:b")) == (["1"], ["3"])
    snapshot = broker.snapshot()
    assert snapshot["operation:1"].startswith(b"queued\tnew\t")
    assert snapshot["operation:1"].endswith(b"\tnormal:a\t")
    assert broker.client.pttl(broker.keys.operation("1")) == -1
    assert snapshot["metrics"] == {b"dead_letters_retried": b"2"}
    assert snapshot["registry"] == {f"{broker.keys.prefix}{queue}".encode() for queue in (Q, "high:b")}
    assert {"wake", "wake:a", "wake:b", "ready:normal", "ready:high"} <= snapshot.keys()
    assert ids_in(broker.claim(9).values) == ["3", "1"]


def test_sent_again_it_gives_the_same_answer_and_changes_nothing(broker: Broker) -> None:
    """Not even when what it took has come back meanwhile, byte for byte."""
    add_dead_letter(broker, "1", "2")
    assert retry(broker, requeue_of("1"), requeue_of("none")) == b"dg"
    add_dead_letter(broker, "1")
    with broker.unchanged():
        assert retry(broker, requeue_of("1"), requeue_of("none")) == b"dg"


def test_a_request_that_was_held_up_does_nothing_after_the_next_one(broker: Broker) -> None:
    add_dead_letter(broker, "1", "2")
    retry(broker, requeue_of("2"), number=2)
    with broker.unchanged():
        assert retry(broker, requeue_of("1"), number=1) == b""
    assert retry(broker, requeue_of("1"), number=1, call="other") == b"d"


def test_a_letter_is_found_where_it_moved_and_left_where_it_is_not_looked_for(broker: Broker) -> None:
    add_dead_letter(broker, *"0123456789")
    assert retry(broker, requeue_of("7"), lowest=3, highest=6) == b"g"
    assert retry(broker, requeue_of("7"), lowest=3, highest=9, number=2) == b"d"
    assert retry(broker, requeue_of("9"), requeue_of("1"), lowest=0, highest=8, number=3) == b"dd"
    assert retry(broker, requeue_of("0"), lowest=50, highest=60, number=4) == b"g"
    assert letters(broker) == list("865432" + "0")


def test_equal_letters_move_one_for_each_time_they_are_named(broker: Broker) -> None:
    add_dead_letter(broker, "1", "2", "1", "1")
    assert retry(broker, *[requeue_of("1", record=False)] * 2) == b"dd"
    assert sorted(letters(broker)) == ["1", "2"]
    assert broker.items(Q) == ["1", "1"]
    add_dead_letter(broker, "3", "3")
    assert retry(broker, requeue_of("3"), requeue_of("3"), number=2) == b"dl"
    assert broker.items(Q) == ["1", "1", "3"]


@pytest.mark.parametrize("status", ["queued", "delayed", "running", "succeeded"])
def test_a_letter_whose_operation_lives_or_has_succeeded_stays(broker: Broker, status: str) -> None:
    add_dead_letter(broker, "1")
    broker.client.set(broker.keys.operation("1"), record_of(status, Q, nonce="n"))
    before = broker.snapshot()
    assert retry(broker, requeue_of("1")) == b"l"
    after = broker.snapshot()
    assert after.pop("answer:c") == b"1 l"
    assert after == before
    untold = retry(broker, requeue_of("1", untold="nn"), number=2)
    assert untold == (b"l" if status == "succeeded" else b"d")


def test_an_untold_record_of_another_call_is_a_live_operation(broker: Broker) -> None:
    """And once retried, it is that of another call."""
    add_dead_letter(broker, "1", "1", "2")
    broker.enqueue(Q, "1", nonce="mine")
    assert retry(broker, requeue_of("1", untold="nother")) == b"l"
    assert retry(broker, requeue_of("1", untold="nmine"), number=2) == b"d"
    assert retry(broker, requeue_of("1", untold="nmine"), number=3) == b"l"


@pytest.mark.parametrize("record", [b"", b"garbage", b"\xff\x00"])
def test_a_record_that_makes_no_sense_is_written_anew(broker: Broker, record: bytes) -> None:
    add_dead_letter(broker, "1")
    broker.client.set(broker.keys.operation("1"), record)
    assert retry(broker, requeue_of("1")) == b"d"
    assert broker.snapshot()["operation:1"].startswith(b"queued\tnew\t")


def test_a_callback_s_letter_touches_no_record(broker: Broker) -> None:
    add_dead_letter(broker, "1")
    broker.client.set(broker.keys.operation("1"), record_of("succeeded", Q))
    assert retry(broker, requeue_of("1", record=False)) == b"d"
    assert broker.snapshot()["operation:1"] == record_of("succeeded", Q)
    assert broker.items(Q) == ["1"]


def test_a_free_deduplication_key_is_taken_again(broker: Broker) -> None:
    add_dead_letter(broker, "1", "2")
    assert retry(broker, requeue_of("1", key="k"), requeue_of("2", key="k")) == b"dl"
    assert broker.snapshot()["dedup"] == {b"k": b"1"}
    assert broker.enqueue(Q, "9", key="k") == [b"1"]


@pytest.mark.parametrize("holder", ["failed", "expired", "lost", "own"])
def test_a_key_that_no_other_live_operation_holds_is_free(broker: Broker, holder: str) -> None:
    add_dead_letter(broker, "1")
    named = "1" if holder == "own" else "9"
    broker.client.hset(broker.keys.prefix + "dedup", "k", named)
    touched_ms = broker.now_ms() - (DEDUP_TTL_MS if holder == "expired" else 0)
    if holder in ("failed", "expired"):
        status = "failed" if holder == "failed" else "queued"
        broker.client.set(broker.keys.operation("9"), record_of(status, Q, touched_ms=touched_ms, key="k"))
    assert retry(broker, requeue_of("1", key="k")) == b"d"
    assert broker.snapshot()["dedup"] == {b"k": b"1"}


def test_a_key_that_a_live_operation_holds_keeps_the_letter(broker: Broker) -> None:
    add_dead_letter(broker, "1")
    broker.enqueue(Q, "9", key="k")
    assert retry(broker, requeue_of("1", key="k")) == b"l"
    assert (letters(broker), broker.items(Q)) == (["1"], ["9"])


@pytest.mark.parametrize("key", ["failures", "dedup", "delayed", "answer:c"])
def test_a_foreign_type_refuses_the_retry_before_its_first_write(broker: Broker, key: str) -> None:
    add_dead_letter(broker, "1")
    broker.squat(key, kind="list" if key == "answer:c" else "string")
    place = Place("failures", "c", 1, 0, 9)
    assert_refused(broker, broker.commands.retry(place, "new", DEDUP_TTL_MS, [requeue_of("1", key="k")]))


@pytest.mark.parametrize("key", [Q, "registry", "ready:normal", "wake", "wake:a", "metrics", "operation:1", "waiters"])
def test_other_foreign_types_lose_no_letter(broker: Broker, key: str) -> None:
    """What its list cannot take waits in the delayed set; equal items are kept apart there."""
    add_dead_letter(broker, "1", "2", "2")
    broker.squat(key, kind="list" if key == "operation:1" else "string")
    place = Place("failures", "c", 1, 0, 9)
    requeues = [requeue_of("1", key="k"), *[requeue_of("2", record=False)] * 2]
    assert assert_whole(broker, broker.commands.retry(place, "new", DEDUP_TTL_MS, requeues))
    assert broker.census() == {"1": 1, "2": 2}
    assert letters(broker) == []


@pytest.mark.parametrize("deep", [False, True])
def test_letters_of_any_bytes_in_a_long_list_move(broker: Broker, deep: bool) -> None:
    """From either end, and nothing else in the list changes."""
    odd = [b"\xff\x00\r\n%d" % n for n in range(300)]
    rest = [b"x%d" % n for n in range(2000)]
    order = [*rest, *odd] if deep else [*odd, *rest]
    broker.client.rpush(broker.keys.failures, *order)
    start = len(order) - 300 if not deep else 0
    place = Place("failures", "c", 1, max(0, start - 100), start + 299)
    requeues = [Requeue(letter, Q, b"{}", "", "", "") for letter in odd]
    assert broker.run(broker.commands.retry(place, "new", DEDUP_TTL_MS, requeues)) == b"d" * 300
    assert broker.snapshot()["failures"] == rest
