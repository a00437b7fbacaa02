"""get_record.lua and what settlements tell: a record is read, and whoever waits for it learns of its next change."""

from __future__ import annotations

from typing import Any

import pytest

from queue_system.broker.replies import RecordReply
from tests.scripts.support import SQUATTER, Broker, record_of

Q = "normal:a"
DONE = record_of("succeeded", Q)


def get_record(broker: Broker, operation_id: str = "1", waits_ms: int | None = None) -> RecordReply:
    return broker.run(broker.commands.get_record(operation_id, waits_ms))


def changes(broker: Broker, operation_id: str = "1") -> int:
    found: Any = broker.client.xlen(broker.keys.change(operation_id))
    return int(found)


def test_a_look_reads_and_changes_nothing(broker: Broker) -> None:
    broker.enqueue(Q, "1")
    with broker.unchanged():
        found = get_record(broker)
        assert found.record.startswith(b"queued\t")
        assert found.now_ms > 0
        assert get_record(broker, "unknown").record == b""


def test_where_nobody_waits_a_settlement_tells_nothing(broker: Broker) -> None:
    broker.enqueue(Q, "1")
    token = broker.claim().first_token
    assert broker.settle_one("complete", token, "1", DONE, "", "") == b"d"
    assert changes(broker) == 0


@pytest.mark.parametrize("verb", ["complete", "fail", "reject", "retry", "running"])
def test_every_change_of_a_record_is_told_to_who_waits(broker: Broker, verb: str) -> None:
    broker.enqueue(Q, "1", "2")
    first = get_record(broker, "1", 10_000)
    assert first.last_change == "0"
    token = broker.claim(wanted=2).first_token
    rest = {
        "complete": ("", ""),
        "fail": ("", "", b"{}"),
        "reject": ("", "", b"{}"),
        "retry": (b"normal:a\n{}", 1000),
        "running": (),
    }[verb]
    assert broker.settle_one(verb, token, "1", DONE, *rest) == b"d"
    assert changes(broker) == 1
    assert broker.client.pttl(broker.keys.change("1")) > 0
    assert changes(broker, "2") == 0
    assert broker.run(broker.commands.wait_for_change("1", first.last_change, 5000))
    last = get_record(broker, "1", 10_000).last_change
    assert last != "0"
    assert not broker.run(broker.commands.wait_for_change("1", last, 1))


def test_a_purge_is_told(broker: Broker) -> None:
    broker.enqueue(Q, "1")
    get_record(broker, "1", 10_000)
    assert broker.run(broker.commands.purge(Q)) == 1
    assert changes(broker) == 1


def test_waits_of_the_past_are_forgotten(broker: Broker) -> None:
    broker.client.zadd(f"{broker.keys.prefix}waiters", {"1": 1, "2": 2})
    broker.enqueue(Q, "1")
    token = broker.claim().first_token
    broker.settle_one("complete", token, "1", DONE, "", "")
    assert not broker.client.exists(f"{broker.keys.prefix}waiters")
    assert changes(broker) == 0


@pytest.mark.parametrize("key", ["waiters", "change:1"])
def test_a_foreign_value_hinders_neither_a_look_nor_a_settlement(broker: Broker, key: str) -> None:
    broker.enqueue(Q, "1")
    get_record(broker, "1", 10_000)
    broker.client.set(broker.keys.prefix + key, SQUATTER)
    assert get_record(broker, "1", 10_000).record.startswith(b"queued\t")
    token = broker.claim().first_token
    assert broker.settle_one("complete", token, "1", DONE, "", "") == b"d"
    assert get_record(broker).record == DONE
