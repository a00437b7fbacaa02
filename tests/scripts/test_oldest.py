"""oldest.lua: the item that each list serves next, without a write."""

from __future__ import annotations

from tests.scripts.support import Broker, item_of


def oldest(broker: Broker, *lists: str) -> list[bytes | None]:
    return broker.run(broker.commands.oldest(lists))


def test_the_next_item_of_each_list_is_read_in_the_order_of_the_question(broker: Broker) -> None:
    broker.enqueue("normal:a", "1", "2")
    broker.enqueue("high:b", "3")
    with broker.unchanged():
        assert oldest(broker, "high:b", "normal:gone", "normal:a") == [item_of("3"), None, item_of("1")]


def test_a_key_of_another_type_counts_as_empty(broker: Broker) -> None:
    broker.client.set(broker.keys.queue("low", "a"), "squatter")
    assert oldest(broker, "low:a") == [None]


def test_of_a_large_item_only_the_end_is_read(broker: Broker) -> None:
    item = b"x" * 5000 + b"y" * 2048
    broker.client.lpush(broker.keys.queue("low", "a"), item)
    assert oldest(broker, "low:a") == [b"y" * 2048]
