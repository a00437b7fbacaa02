"""orphans.lua: whoever holds something and has no entry is dead; everybody else is left alone."""

from __future__ import annotations

import pytest

from queue_system.model.formats import dead, id_of
from tests.scripts.support import Broker, W, assert_refused

Q = "normal:a"


def scan(broker: Broker) -> int:
    """Look at all incarnations; return how many orphans were found."""
    return broker.follow(broker.commands.orphans)


def incarnations(broker: Broker) -> set[str]:
    return set(broker.run(broker.commands.incarnations()))


@pytest.fixture
def orphan(broker: Broker) -> Broker:
    """`W` holds an item and has lost its entry; `w2` holds one and lives; `w3` is being reclaimed."""
    broker.register("w2", "w3")
    for i, name in enumerate((W, "w2", "w3")):
        broker.enqueue(Q, str(i))
        broker.claim(by=name)
    broker.add_dead_letter("w3")
    broker.client.hdel(broker.keys.workers, W)
    return broker


def test_a_named_orphan_is_declared_dead(orphan: Broker) -> None:
    assert orphan.run(orphan.commands.orphans("", ["w2", W, "w3", "nobody"])) == ("", 1)
    assert incarnations(orphan) == {dead(W), "w2", dead("w3")}
    assert orphan.run(orphan.commands.orphans("", [W])) == ("", 0)


def test_an_orphan_that_nobody_has_named_is_found(orphan: Broker) -> None:
    assert scan(orphan) == 1
    assert incarnations(orphan) == {dead(W), "w2", dead("w3")}
    assert scan(orphan) == 0


def test_a_page_is_small_however_many_incarnations_there_are(orphan: Broker) -> None:
    known = orphan.keys.prefix + "incarnations"
    orphan.client.hset(known, mapping={f"forgotten{i}": "" for i in range(3000)})
    cursor, _ = orphan.run(orphan.commands.orphans("0"))
    assert cursor != "0"
    assert scan(orphan) + scan(orphan) <= 1
    assert set(orphan.client.hgetall(known)) == {W.encode(), b"w2", b"w3"}
    assert dead(W) in incarnations(orphan)


def test_a_beat_makes_an_incarnation_known_and_its_end_makes_it_forgotten(orphan: Broker) -> None:
    known = orphan.keys.prefix + "incarnations"
    orphan.client.delete(known)
    assert orphan.run(orphan.commands.beat("beat", "w2", 1)).alive
    orphan.register("w4")
    assert set(orphan.client.hgetall(known)) == {b"w2", b"w4"}
    orphan.run(orphan.commands.beat("leave", "w4", 1))
    assert set(orphan.client.hgetall(known)) == {b"w2"}


def test_a_foreign_type_of_the_known_incarnations_stops_neither_beats_nor_sweeps(orphan: Broker) -> None:
    orphan.squat("incarnations")
    assert scan(orphan) == 0
    assert orphan.run(orphan.commands.beat("beat", "w2", 1)).alive
    assert orphan.run(orphan.commands.orphans("", [W])) == ("", 1)


def test_a_key_of_a_foreign_type_is_no_orphan(orphan: Broker) -> None:
    orphan.squat(f"inflight:{W}")
    assert scan(orphan) == 0
    assert W not in {id_of(name) for name in incarnations(orphan)}


@pytest.mark.parametrize("names", [(), (W,)])
def test_a_foreign_type_in_the_place_of_the_entries_refuses_it(orphan: Broker, names: tuple[str, ...]) -> None:
    orphan.squat("workers")
    assert_refused(orphan, orphan.commands.orphans("" if names else "0", names))
