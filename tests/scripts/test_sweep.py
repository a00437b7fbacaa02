"""sweep.lua: what foreign clients pushed is found, once in each interval for the whole fleet."""

from __future__ import annotations

import pytest

from tests.scripts.support import Broker, assert_whole, ids_in, item_of

INTERVAL_MS = 60_000


def push(broker: Broker, queue: str, *ids: str) -> None:
    """Write as a foreign client does: to a list that is in the registry."""
    broker.client.sadd(broker.keys.registry, broker.keys.prefix + queue)
    broker.client.lpush(broker.keys.prefix + queue, *map(item_of, ids))


def sweep(broker: Broker, interval_ms: int = 0) -> tuple[str, int]:
    return broker.run(broker.commands.sweep("0", interval_ms))


def test_a_foreign_list_enters_the_index_and_wakes_a_worker(broker: Broker) -> None:
    push(broker, "low:a", "1", "2")
    assert list(broker.claim(5).values) == []
    before = broker.now_ms()
    assert sweep(broker) == ("0", 1)
    assert broker.score("wake") == broker.score("wake:a") == 0
    assert before <= int(broker.snapshot()["swept"]) <= broker.now_ms()
    assert ids_in(broker.claim(5).values) == ["1", "2"]


def test_lists_that_are_known_empty_or_not_ours_are_left_alone(broker: Broker) -> None:
    broker.enqueue("normal:a", "1")
    broker.client.sadd(
        broker.keys.registry,
        *(broker.keys.prefix + name for name in ("high:empty", "urgent:a", "failures", "normal:a b", "")),
        "elsewhere:high:a", b"\xff\x00",
    )  # fmt: skip
    broker.client.lpush(broker.keys.prefix + "urgent:a", "x")
    broker.client.lpush(broker.keys.prefix + "normal:a b", "x")
    with broker.unchanged("swept"):
        assert sweep(broker) == ("0", 0)


def test_one_sweep_serves_the_fleet_for_an_interval(broker: Broker) -> None:
    assert sweep(broker, interval_ms=INTERVAL_MS) == ("0", 0)
    push(broker, "normal:a", "1")
    with broker.unchanged():
        assert sweep(broker, interval_ms=INTERVAL_MS) == ("-1", 0)
    assert sweep(broker) == ("0", 1)


def test_a_clock_that_was_set_back_does_not_stop_the_sweeps(broker: Broker) -> None:
    broker.client.set(broker.keys.prefix + "swept", broker.now_ms() + 10 * INTERVAL_MS)
    push(broker, "normal:a", "1")
    assert sweep(broker, interval_ms=INTERVAL_MS) == ("0", 1)


def test_sent_again_it_adds_nothing(broker: Broker) -> None:
    push(broker, "normal:a", "1")
    sweep(broker)
    with broker.unchanged("swept"):
        assert sweep(broker) == ("0", 0)


def test_many_lists_are_swept_page_by_page(broker: Broker) -> None:
    for i in range(1200):
        push(broker, f"normal:q{i}", str(i))
    found = broker.follow(lambda cursor: broker.commands.sweep(cursor, 0 if cursor == "0" else INTERVAL_MS))
    assert found == broker.client.zcard(broker.keys.prefix + "ready:normal") == 1200


@pytest.mark.parametrize("garbage", ["abc", ""])
def test_a_note_of_the_last_sweep_that_makes_no_sense_does_not_stop_the_sweeps(broker: Broker, garbage: str) -> None:
    broker.client.set(broker.keys.prefix + "swept", garbage)
    push(broker, "normal:a", "1")
    assert sweep(broker) == ("0", 1)


@pytest.mark.parametrize("key", ["registry", "swept", "ready:high", "high:a", "wake", "wake:a"])
def test_a_foreign_type_refuses_the_sweep_whole_or_hides_one_list(broker: Broker, key: str) -> None:
    push(broker, "high:a", "1")
    push(broker, "low:a", "2")
    broker.squat(key, kind="list" if key == "swept" else "string")
    assert_whole(broker, broker.commands.sweep("0", 0))


def test_a_foreign_type_of_one_index_does_not_hide_the_lists_of_another(broker: Broker) -> None:
    for queue in ("high:a", "normal:a", "low:a"):
        push(broker, queue, queue)
    broker.squat("ready:normal")
    assert sweep(broker) == ("0", 2)
    assert ids_in(broker.claim(5).values) == ["high:a", "low:a"]


def test_empty_lists_cost_no_look_at_each(broker: Broker) -> None:
    """Beside one that is filled, too."""
    broker.client.sadd(broker.keys.registry, *(f"{broker.keys.prefix}normal:q{i}" for i in range(3000)))
    push(broker, "normal:q7", "1")
    with broker.counting() as looks:
        assert broker.follow(lambda cursor: broker.commands.sweep(cursor, 0)) == 1
    assert looks.total() < 300


def test_queues_indexed_before_the_clock_was_set_back_have_their_turn_in_their_order(broker: Broker) -> None:
    for queue in ("normal:a", "normal:b", "normal:c"):
        broker.enqueue(queue, f"old {queue}")
    ahead_us = broker.now_ms() * 1000 + 3_600_000_000
    broker.client.zadd(f"{broker.keys.prefix}ready:normal", {"b": ahead_us, "c": ahead_us + 1, "a": ahead_us + 2})
    broker.enqueue("normal:new", "1", "2", "3", "4", "5")
    sweep(broker)
    first = [ids_in(broker.claim(1).values) for _ in range(3)]
    assert first == [["old normal:b"], ["old normal:c"], ["old normal:a"]]
