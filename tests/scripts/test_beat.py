"""beat.lua: an incarnation registers, shows that it lives and signs off."""

from __future__ import annotations

import pytest

from queue_system.broker.presence import Presence, encode_presence, presences
from queue_system.broker.replies import Pulse
from tests.scripts.support import Broker, W, assert_refused


class Beat:
    """Sends beats, of the incarnation `W` unless told otherwise."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def __call__(self, mode: str, incarnation: str = W, lease_ms: int = 15_000) -> Pulse:
        return self._broker.run(self._broker.commands.beat(mode, incarnation, lease_ms))

    def entry(self, incarnation: str = W) -> bytes | None:
        return self._broker.run(self._broker.commands.incarnations()).get(incarnation)


@pytest.fixture
def beat(broker: Broker) -> Beat:
    return Beat(broker)


def test_each_beat_raises_the_counter_and_tells_the_lease(beat: Beat) -> None:
    assert beat.entry() == b"1:15000"
    assert beat("beat") == Pulse(alive=True, tokens=0, incarnations=1)
    assert beat("register", lease_ms=200) == Pulse(alive=True, tokens=0, incarnations=1)
    assert beat.entry() == b"3:200"


def test_a_beat_keeps_what_the_worker_tells_of_itself_until_it_leaves(broker: Broker, beat: Beat) -> None:
    """One of an older release tells nothing, and what a foreign program writes there is not believed."""
    run, commands = broker.run, broker.commands
    told = encode_presence([f"q{n}" for n in range(13)], 5, 2)
    assert run(commands.beat("beat", W, 15_000, told)).alive
    broker.register("old", "foreign")
    broker.client.hset(broker.keys.prefix + "incarnations", "foreign", '{"queues": 5, "abandoned": -1}')
    found = run(presences(broker.keys, [W, "old", "foreign", "unknown"]))
    assert found == {W: Presence([f"q{n}" for n in range(10)], 3, 5, 2)}
    assert found[W].serves.endswith("q9, and 3 more")
    beat("leave")
    assert run(presences(broker.keys, [W])) == {}


def test_a_beat_tells_the_tokens_in_flight_and_the_incarnations(broker: Broker, beat: Beat) -> None:
    broker.enqueue("normal:a", "1", "2")
    first = broker.claim(2).first_token
    broker.register("w2")
    assert beat("beat") == Pulse(alive=True, tokens=2, incarnations=2)
    broker.settle_one("release", first)
    assert beat("beat").tokens == 1


def test_a_beat_never_brings_back_an_unregistered_incarnation(broker: Broker, beat: Beat) -> None:
    with broker.unchanged():
        for mode in ("beat", "leave"):
            assert not beat(mode, "nobody").alive
    broker.add_dead_letter()
    with broker.unchanged():
        for mode in ("beat", "leave"):
            assert not beat(mode).alive


def test_an_incarnation_that_is_being_reclaimed_cannot_register_again(broker: Broker, beat: Beat) -> None:
    """Its items are being moved: what it claimed meanwhile would be taken from it as if it had died."""
    broker.enqueue("normal:a", "1")
    broker.claim()
    broker.add_dead_letter()
    assert not beat("register").alive


def test_an_incarnation_that_holds_nothing_leaves_without_a_trace(broker: Broker, beat: Beat) -> None:
    broker.enqueue("normal:a", "1")
    broker.settle_one("complete", broker.claim().first_token, "1", b"r", "", "")
    assert beat("leave") == Pulse(alive=True, tokens=0, incarnations=0)
    assert not {"workers", f"inflight:{W}"} & broker.snapshot().keys()
    assert beat("leave") == Pulse(alive=False, tokens=0, incarnations=0)


def test_an_incarnation_that_holds_tokens_does_not_leave(broker: Broker, beat: Beat) -> None:
    broker.enqueue("normal:a", "1")
    broker.claim()
    with broker.unchanged():
        assert beat("leave") == Pulse(alive=True, tokens=1, incarnations=1)


def test_an_entry_that_makes_no_sense_begins_anew(broker: Broker, beat: Beat) -> None:
    """A worker whose entry was overwritten by hand goes on beating."""
    broker.client.hset(broker.keys.workers, W, "garbage")
    assert beat("beat").alive
    assert beat.entry() == b"1:15000"


@pytest.mark.parametrize("mode", ["register", "beat", "leave"])
@pytest.mark.parametrize("key", ["workers", f"inflight:{W}"])
def test_a_foreign_type_refuses_the_beat_before_its_first_write(broker: Broker, key: str, mode: str) -> None:
    broker.squat(key)
    assert_refused(broker, broker.commands.beat(mode, W, 1))
