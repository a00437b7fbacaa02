"""watch.lua: all entries, and a sign for those who leave the watch to others."""

from __future__ import annotations

import pytest

from tests.scripts.support import Broker, W, assert_refused


def test_it_gives_every_entry_and_leaves_a_sign(broker: Broker) -> None:
    broker.register("w2")
    broker.add_dead_letter("w2")
    entries = broker.run(broker.commands.watch("sign"))
    assert entries == broker.run(broker.commands.incarnations()) == {W: b"1:15000", "dead:w2": b"1:15000"}
    assert broker.run(broker.commands.watched()) == b"sign"


def test_who_is_not_fit_to_take_over_leaves_no_sign(broker: Broker) -> None:
    with broker.unchanged():
        assert broker.run(broker.commands.watch("")).keys() == {W}
        assert not broker.run(broker.commands.watched())


def test_a_sign_of_a_foreign_type_is_replaced(broker: Broker) -> None:
    broker.squat("watched", kind="list")
    broker.run(broker.commands.watch("sign"))
    assert broker.run(broker.commands.watched()) == b"sign"


@pytest.mark.parametrize("sign", ["", "sign"])
def test_a_foreign_type_in_the_place_of_the_entries_refuses_it(broker: Broker, sign: str) -> None:
    broker.squat("workers")
    assert_refused(broker, broker.commands.watch(sign))
