"""purge.lua: the waiting items of one queue go, with all that was kept about them and nothing else."""

from __future__ import annotations

import pytest

from tests.scripts.support import Broker, assert_refused, item_of, record_of

Q = "normal:a"


def purge(broker: Broker, *delayed: bytes) -> int:
    return broker.run(broker.commands.purge(Q, delayed))


def test_items_go_with_records_and_deduplication_keys(broker: Broker) -> None:
    broker.enqueue(Q, "1", key="k1")
    broker.enqueue(Q, "2", "3")
    broker.enqueue("normal:b", "4", key="k4")
    assert purge(broker) == 3
    snapshot = broker.snapshot()
    assert {key for key in snapshot if key.startswith("operation:")} == {"operation:4"}
    assert snapshot["dedup"] == {b"k4": b"4"}
    assert [name for name, _ in snapshot["ready:normal"]] == [b"b"]
    assert snapshot["metrics"][b"purged"] == b"3"
    assert broker.census() == {"4": 1}


def test_sent_again_it_removes_nothing_more(broker: Broker) -> None:
    broker.enqueue(Q, "1")
    purge(broker)
    with broker.unchanged():
        assert purge(broker) == 0


def test_what_is_in_flight_goes_on(broker: Broker) -> None:
    broker.enqueue(Q, "1", "2", key="")
    token = broker.claim().first_token
    assert purge(broker) == 1
    assert "operation:1" in broker.snapshot()
    assert broker.settle_one("complete", token, "1", b"r", "", "") == b"d"


def test_only_the_given_members_of_the_delayed_set_go(broker: Broker) -> None:
    broker.enqueue(Q, "1", key="k", delay_ms=60_000)
    broker.enqueue(Q, "2", delay_ms=60_000)
    broker.enqueue(Q, "3")
    member = b"0\n%b\n%b" % (Q.encode(), item_of("1"))
    assert purge(broker, member, b"unknown") == 1
    assert broker.census() == {"2": 1, "3": 1}
    assert not {"operation:1", "dedup"} & broker.snapshot().keys()
    with broker.unchanged():
        assert purge(broker, member) == 0


def test_a_deduplication_key_that_names_another_operation_stays(broker: Broker) -> None:
    broker.enqueue(Q, "1", key="k")
    broker.client.hset(broker.keys.prefix + "dedup", "k", "2")
    purge(broker)
    assert broker.snapshot()["dedup"] == {b"k": b"2"}


def test_a_waiting_callback_takes_no_verdict_with_it(broker: Broker) -> None:
    """The record of an operation that succeeded stays for its lifetime, whatever becomes of its callback."""
    broker.enqueue(Q, "1")
    token = broker.claim().first_token
    record = record_of("succeeded", Q)
    broker.settle_one("complete", token, "1", record, "", b"%b\n%b" % (Q.encode(), item_of("1")))
    broker.settle_one("release", token)
    assert purge(broker) == 1
    assert broker.snapshot().get("operation:1") == record


@pytest.mark.parametrize("item", [b"", b"\xff\x00\n", b"[]", b'{"operation_id":"a\\"b"}', b'{"operation_id":""}'])
def test_foreign_items_go_too(broker: Broker, item: bytes) -> None:
    broker.client.lpush(broker.keys.prefix + Q, item)
    assert purge(broker) == 1
    assert broker.client.llen(broker.keys.prefix + Q) == 0


@pytest.mark.parametrize("record", [b"", b"garbage", b"queued\tn\tx\t\t", b"\xff"])
def test_records_that_make_no_sense_go_too(broker: Broker, record: bytes) -> None:
    broker.enqueue(Q, "1")
    broker.client.set(broker.keys.operation("1"), record)
    assert purge(broker) == 1
    assert "operation:1" not in broker.snapshot()


@pytest.mark.parametrize("key", [Q, "delayed", "dedup"])
def test_a_foreign_type_refuses_the_purge_before_its_first_write(broker: Broker, key: str) -> None:
    broker.enqueue(Q, "1", key="k")
    broker.squat(key)
    assert_refused(broker, broker.commands.purge(Q))
    assert_refused(broker, broker.commands.purge(Q, [b"0\nnormal:a\n" + item_of("1")]))


@pytest.mark.parametrize("key", ["ready:normal", "metrics", "operation:1"])
def test_a_foreign_type_of_an_index_counter_or_record_does_not_stop_a_purge(broker: Broker, key: str) -> None:
    broker.enqueue(Q, "1", "2")
    broker.squat(key, kind="list")
    assert purge(broker) == 2
    assert broker.census() == {}


def test_one_call_removes_about_eight_mebibytes(broker: Broker) -> None:
    for number in range(30):
        item = b'{"operation_id":"%d","entity":"%b"}' % (number, b"x" * 1024 * 1024)
        broker.client.lpush(broker.keys.prefix + Q, item)
    removed = [purge(broker) for _ in range(5)]
    assert sum(removed) == 30
    assert max(removed) <= 16
    assert removed[-1] == 0


def test_one_call_removes_a_thousand_items_and_the_next_the_rest(broker: Broker) -> None:
    for start in (0, 800):
        broker.enqueue(Q, *(str(i) for i in range(start, start + 800)), nonce=str(start))
    assert [purge(broker), purge(broker), purge(broker)] == [1000, 600, 0]
    assert not any(key.startswith("operation:") for key in broker.snapshot())
    broker.enqueue(Q, *(str(i) for i in range(1000)), delay_ms=60_000)
    assert purge(broker, *broker.client.zrange(broker.keys.delayed, 0, -1)) == 1000
    assert not any(key.startswith("operation:") for key in broker.snapshot())
