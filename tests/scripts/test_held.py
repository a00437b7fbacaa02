"""held.lua: what an incarnation holds is read page by page, the oldest first, and about 8 MiB at once."""

from __future__ import annotations

import pytest

from queue_system.broker.commands import Commands
from tests.scripts.support import Broker, W, assert_refused

MIB = 1024 * 1024


def hold(broker: Broker, values: dict[bytes, bytes]) -> None:
    """Write into what the incarnation holds."""
    for token, value in values.items():
        broker.client.hset(broker.keys.inflight(W), token, value)


def pages(broker: Broker) -> list[dict[bytes, bytes | None]]:
    """Follow the cursor to the end."""
    found = []
    cursor = ""
    while cursor != "0":
        cursor, page = broker.run(broker.commands.held(W, cursor or "0"))
        found.append(page)
        assert len(found) < 1000
    return found


@pytest.mark.parametrize("count", [0, 1, 100, 101, 250])
def test_pages_of_up_to_a_hundred_lead_through_all_in_order(broker: Broker, count: int) -> None:
    held = {b"%d" % token: b"value %d" % token for token in range(95, 95 + count)}
    hold(broker, dict(sorted(held.items())))
    read = pages(broker)
    assert [entry for page in read for entry in page.items()] == list(held.items())
    assert max(map(len, read)) <= 100


def test_a_page_ends_behind_eight_mebibytes(broker: Broker) -> None:
    hold(broker, {b"%d" % token: b"x" * MIB for token in range(10, 30)})
    assert [len(page) for page in pages(broker)] == [8, 8, 4]


def test_of_a_value_too_large_to_be_sent_only_the_token_is_told(broker: Broker) -> None:
    broker.commands = Commands(broker.keys, 100, most_sent=10)
    hold(broker, {b"1": b"small", b"2": b"x" * 11, b"3": b"x" * 10})
    assert pages(broker) == [{b"1": b"small", b"2": None, b"3": b"x" * 10}]


def test_notes_are_passed_over_and_foreign_fields_are_not(broker: Broker) -> None:
    foreign = [b"", b"x", b"\xff\x00", b"-1", b"1.5", b"9" * 30]
    hold(broker, dict.fromkeys([b"#claim", b"#settle", b"#later", *foreign], b"value"))
    hold(broker, {b"%d" % token: b"value" for token in range(1000, 1150)})
    read = [token for page in pages(broker) for token in page]
    assert sorted(read) == sorted([*foreign, *(b"%d" % token for token in range(1000, 1150))])


def test_a_foreign_type_refuses_the_reading(broker: Broker) -> None:
    broker.squat(f"inflight:{W}")
    assert_refused(broker, broker.commands.held(W))
