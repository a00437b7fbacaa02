"""enqueue.lua: new operations come in whole, once, and wake a worker."""

from __future__ import annotations

import pytest

from queue_system.broker.requests import NewOperation
from tests.scripts.support import (
    DEDUP_TTL_MS,
    RESULT_TTL_MS,
    Broker,
    W,
    assert_refused,
    assert_whole,
    item_of,
    record_of,
)

Q = "normal:a"


def test_operations_join_the_tail_with_record_index_registry_markers_and_counter(broker: Broker) -> None:
    before = broker.now_ms()
    assert broker.enqueue(Q, "1", "2", nonce="n1", key="") == [1, 1]
    snapshot = broker.snapshot()
    status, nonce, touched, queue, key = snapshot["operation:1"].split(b"\t")
    assert (status, nonce, queue, key) == (b"queued", b"n1", Q.encode(), b"")
    assert before <= int(touched) <= broker.now_ms()
    assert broker.items(Q) == ["1", "2"]
    assert snapshot["registry"] == {(broker.keys.prefix + Q).encode()}
    assert [name for name, _ in snapshot["ready:normal"]] == [b"a"]
    assert snapshot["wake"] == snapshot["wake:a"] == [(b"r", 0.0)]
    assert snapshot["metrics"] == {b"enqueued": b"2"}
    assert "delayed" not in snapshot
    assert "dedup" not in snapshot
    assert broker.client.pttl(broker.keys.operation("1")) == -1


@pytest.mark.parametrize("delay_ms", [0, 60_000])
def test_sent_again_with_the_same_nonce_it_adds_nothing_and_answers_the_same(broker: Broker, delay_ms: int) -> None:
    assert broker.enqueue(Q, "1", "2", key="k", delay_ms=delay_ms) == [1, b"1"]
    with broker.unchanged():
        assert broker.enqueue(Q, "1", "2", key="k", delay_ms=delay_ms) == [1, b"1"]


def test_sent_again_after_its_completion_it_adds_nothing(broker: Broker) -> None:
    broker.enqueue(Q, "1", key="k")
    token = broker.claim().first_token
    assert broker.settle_one("complete", token, "1", record_of("succeeded", Q, nonce="n", key="k"), "k", "") == b"d"
    with broker.unchanged():
        assert broker.enqueue(Q, "1", key="k") == [1]


def test_a_taken_id_is_refused_under_another_nonce(broker: Broker) -> None:
    assert broker.enqueue(Q, "1", nonce="n1") == [1]
    with broker.unchanged():
        assert broker.enqueue("high:b", "1", nonce="n2") == [0]


def test_an_id_given_twice_in_one_call_is_not_answered_queued_twice(broker: Broker) -> None:
    """The second operation is not added, so its caller must not hear that it was."""
    new = [NewOperation("1", item_of("1")), NewOperation("1", item_of("1").replace(b'"entity":1', b'"entity":2'))]
    assert broker.run(broker.commands.enqueue(Q, "n", new, dedup_ttl_ms=DEDUP_TTL_MS)) == [1, 0]


def test_a_record_of_a_foreign_type_counts_as_a_taken_id(broker: Broker) -> None:
    broker.squat("operation:1", kind="list")
    assert broker.enqueue(Q, "1", "2") == [0, 1]
    assert broker.items(Q) == ["2"]


def test_a_delayed_operation_waits_in_the_delayed_set_until_its_due_time(broker: Broker) -> None:
    before = broker.now_ms()
    assert broker.enqueue(Q, "1", delay_ms=60_000) == [1]
    ((member, due_ms),) = broker.snapshot()["delayed"]
    assert member == b"0\n%b\n%b" % (Q.encode(), item_of("1"))
    assert before + 60_000 <= due_ms <= broker.now_ms() + 60_000
    record = broker.snapshot()["operation:1"]
    assert record.split(b"\t")[:3] == [b"delayed", b"n", b"%d" % due_ms]
    assert broker.items(Q) == []
    assert broker.score("wake") == broker.score("wake:a") == 0
    claimed = broker.claim()
    assert (list(claimed.values), claimed.next_due_ms) == ([], due_ms)


def test_a_deduplication_key_stays_taken_by_a_retry_and_a_release(broker: Broker) -> None:
    broker.enqueue(Q, "1", key="k")
    broker.settle_one("release", broker.claim().first_token)
    assert broker.enqueue(Q, "2", key="k") == [b"1"]
    record = record_of("delayed", Q, touched_ms=broker.now_ms(), key="k")
    value = b"%b\n%b" % (Q.encode(), item_of("1"))
    broker.settle_one("retry", broker.claim().first_token, "1", record, value, 0)
    assert broker.enqueue(Q, "2", key="k") == [b"1"]


@pytest.mark.parametrize("status", ["queued", "running", "delayed"])
def test_a_deduplication_key_whose_operation_shows_no_life_within_its_lifetime_heals(
    broker: Broker, status: str
) -> None:
    broker.enqueue(Q, "1", key="k")
    record = broker.keys.operation("1")
    broker.client.set(record, record_of(status, Q, touched_ms=broker.now_ms() - 50_000, key="k"))
    assert broker.enqueue("high:b", "2", nonce="n2", key="k") == [b"1"]
    broker.client.set(record, record_of(status, Q, touched_ms=broker.now_ms() - 60_001, key="k"))
    assert broker.enqueue(Q, "2", nonce="n3", key="k") == [1]


def test_the_lifetime_of_a_deduplication_key_counts_from_the_due_time(broker: Broker) -> None:
    broker.enqueue(Q, "1", key="k", delay_ms=10_000, dedup_ttl_ms=1)
    assert broker.enqueue(Q, "2", key="k", dedup_ttl_ms=1) == [b"1"]


@pytest.mark.parametrize("garbage", [None, b"", b"queued", b"queued\tn\tnever\t", b"\t\t\t", b"\xff\x00"])
def test_a_deduplication_key_whose_record_is_gone_or_senseless_heals(broker: Broker, garbage: bytes | None) -> None:
    broker.enqueue(Q, "1", key="k")
    broker.client.delete(broker.keys.operation("1"))
    if garbage is not None:
        broker.client.set(broker.keys.operation("1"), garbage)
    assert broker.enqueue(Q, "2", key="k") == [1]
    assert broker.snapshot()["dedup"] == {b"k": b"2"}


@pytest.mark.parametrize(
    "key, first, delay_ms",
    [
        (Q, "k", 0),
        ("ready:normal", "k", 0),
        ("registry", "k", 0),
        ("dedup", "k", 0),
        # A record without its item would answer the resend with "queued", and the item would be lost.
        ("dedup", "", 0),
        ("delayed", "k", 1000),
    ],
)
def test_a_foreign_type_refuses_the_call_before_its_first_write(
    broker: Broker, key: str, first: str, delay_ms: int
) -> None:
    broker.squat(key)
    new = [NewOperation("1", item_of("1"), first), NewOperation("2", item_of("2"), "k2")]
    assert_refused(broker, broker.commands.enqueue(Q, "n", new, delay_ms=delay_ms, dedup_ttl_ms=DEDUP_TTL_MS))


@pytest.mark.parametrize("key", ["wake", "wake:a", "delayed"])
def test_a_foreign_type_of_a_wake_up_marker_or_of_what_is_not_needed_refuses_nothing(broker: Broker, key: str) -> None:
    """A marker is a hint: workers look every 5 s without it. The delayed set takes delayed operations only."""
    broker.squat(key)
    assert broker.enqueue(Q, "1") == [1]
    assert broker.items(Q) == ["1"]


def test_a_foreign_type_of_the_counters_loses_nothing(broker: Broker) -> None:
    broker.squat("metrics")
    new = [NewOperation("1", item_of("1"))]
    assert assert_whole(broker, broker.commands.enqueue(Q, "n", new, dedup_ttl_ms=DEDUP_TTL_MS))
    assert broker.census() == {"1": 1}


def test_a_thousand_operations_come_in_with_one_call(broker: Broker) -> None:
    ids = [str(i) for i in range(1000)]
    assert broker.enqueue(Q, *ids) == [1] * 1000
    assert broker.items(Q) == ids
    assert broker.enqueue(Q, *(f"d{i}" for i in ids), delay_ms=60_000) == [1] * 1000
    assert broker.client.zcard(broker.keys.delayed) == 1000


def test_a_server_that_forgot_the_scripts_gets_them_again(broker: Broker) -> None:
    broker.client.script_flush()
    assert broker.enqueue(Q, "1") == [1]
    broker.client.script_flush()
    assert broker.claim().values == [b"%b\n%b" % (Q.encode(), item_of("1"))]
    assert broker.settle_one("complete", min(broker.inflight()), "1", b"r", "", "", ttl_ms=RESULT_TTL_MS) == b"d"
    assert broker.inflight(W) == {}
