"""forget_names.lua: names of queues that nobody has used for long go, and come back with their next use."""

from __future__ import annotations

import pytest

from tests.scripts.support import Broker, ids_in, item_of

LONG_MS = 7 * 86_400_000
INTERVAL_MS = 60_000


def look(broker: Broker, *, interval_ms: int = 0, after_ms: int = LONG_MS) -> int:
    """Make one pass; return how many names went."""
    return broker.follow(lambda cursor: broker.commands.forget_names(cursor, interval_ms, after_ms))


def age(broker: Broker, name: str, by_ms: int = LONG_MS + 1000) -> None:
    """Let it be so long since the name was first seen unused."""
    assert broker.client.zscore(broker.keys.drained, name) is not None, "it was not seen unused"
    broker.client.zincrby(broker.keys.drained, -by_ms, name)


def known(broker: Broker) -> set[str]:
    lists: set[bytes] = broker.client.smembers(broker.keys.registry)  # type: ignore[assignment]
    return {each.decode().removeprefix(broker.keys.prefix) for each in lists}


def drain(broker: Broker, *queues: str) -> None:
    for queue in queues:
        broker.enqueue(queue, f"in {queue}")
    broker.client.delete(*(broker.keys.prefix + queue for queue in queues))


def test_a_name_goes_that_was_empty_and_unused_for_long_and_nothing_of_it_stays(broker: Broker) -> None:
    drain(broker, "normal:a", "low:a", "normal:b")
    before = broker.snapshot()
    assert look(broker) == look(broker) == 0
    age(broker, "a")
    assert look(broker) == 1
    assert known(broker) == {"normal:b"}
    assert not [key for key in broker.snapshot() if key == "wake:a"]
    assert broker.score("ready:normal", "a") is broker.score("ready:low", "a") is broker.score("drained", "a") is None
    assert before.keys() - broker.snapshot().keys() >= {"wake:a", "ready:low"}


def test_a_use_begins_its_time_anew(broker: Broker) -> None:
    """An enqueue, though the queue is empty again when the next pass looks."""
    drain(broker, "normal:a")
    look(broker)
    age(broker, "a")
    drain(broker, "high:a")
    assert look(broker) == look(broker) == 0
    age(broker, "a")
    assert look(broker) == 1


def test_a_name_with_items_stays_whoever_pushed_them(broker: Broker) -> None:
    broker.client.sadd(broker.keys.registry, f"{broker.keys.prefix}normal:a", f"{broker.keys.prefix}high:a")
    look(broker)
    age(broker, "a")
    broker.client.lpush(f"{broker.keys.prefix}high:a", item_of("1"))
    assert look(broker, after_ms=0) == 0
    assert known(broker) == {"normal:a", "high:a"}
    assert broker.score("drained", "a") is None


def test_a_name_that_went_comes_back_with_the_next_enqueue(broker: Broker) -> None:
    """Though the index still named the queue, as it does when the last claim took exactly what there was."""
    broker.enqueue("normal:a", "1")
    broker.claim(1)
    look(broker)
    age(broker, "a")
    assert look(broker) == 1
    broker.enqueue("normal:a", "2")
    assert known(broker) == {"normal:a"}
    assert ids_in(broker.claim(1).values) == ["2"]


def test_names_that_a_worker_registers_again_stay(broker: Broker) -> None:
    names = [f"q{n}" for n in range(700)]
    for command in broker.commands.register_queues(names):
        broker.run(command)
    look(broker)
    for name in names:
        age(broker, name)
    for command in broker.commands.register_queues(names):
        broker.run(command)
    assert look(broker) == look(broker) == 0
    assert len(known(broker)) == 3 * 700


def test_one_pass_serves_the_fleet_for_an_interval(broker: Broker) -> None:
    look(broker)
    drain(broker, "normal:a")
    with broker.unchanged():
        assert broker.run(broker.commands.forget_names("0", INTERVAL_MS, 0)) == ("-1", 0)


def test_a_clock_that_was_set_back_neither_stops_the_passes_nor_keeps_names(broker: Broker) -> None:
    drain(broker, "normal:a")
    look(broker)
    for member in ("", "a"):
        broker.client.zincrby(broker.keys.drained, 10 * LONG_MS, member)
    look(broker, interval_ms=INTERVAL_MS)
    age(broker, "a")
    assert look(broker) == 1


@pytest.mark.parametrize("foreign", ["elsewhere:high:a", "urgent:a", "high:a b", ""])
def test_what_is_no_list_of_ours_is_left_alone(broker: Broker, foreign: str) -> None:
    entry = foreign if foreign.startswith("elsewhere") else broker.keys.prefix + foreign
    broker.client.sadd(broker.keys.registry, entry)
    look(broker, after_ms=0)
    assert look(broker, after_ms=0) == 0
    assert broker.client.smembers(broker.keys.registry) == {entry.encode()}
