"""What one incarnation holds: arrivals, suspects of being poison, what is handed back, and a lost lease."""

from __future__ import annotations

import pytest

from queue_system.broker.replies import Claimed
from queue_system.model.verdict import Complete
from tests.unit.execution.support import SETTLER, Stage, unpack


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_an_arrival_is_held_and_waits_for_a_slot(stage: Stage) -> None:
    stage.accept(1, "low:p")
    stage.accept(2, "high:p")
    assert set(stage.inflight.held) == {1, 2}
    assert [stage.next().token, stage.next().token] == [2, 1]


@pytest.mark.parametrize(
    "value", [b"", b"no line", b"normal:p\nno item", b'elsewhere\n{"processor":"p"}', b"high:\n{}"]
)
def test_an_arrival_that_cannot_be_decoded_is_rejected_at_once(stage: Stage, value: bytes) -> None:
    stage.inflight.accept(7, value, 1_000)
    assert len(stage.inflight.buffer) == 0
    (settlement,) = stage.batch().settlements
    assert settlement.verb == "reject"
    token, operation_id, *_ = unpack(settlement.packed)
    assert (token, operation_id) == (b"7", b"")
    assert stage.metrics.snapshot()["errors"] == 1


@pytest.mark.parametrize("values", [(), (b"", b"")])
def test_the_newest_token_is_known_once_an_answer_is_taken_in(stage: Stage, values: tuple[bytes, ...]) -> None:
    stage.inflight.claimed(Claimed(1_000, -1, False, (), 7, values))
    assert stage.inflight.newest == 0
    stage.inflight.arrivals.take_in()
    assert stage.inflight.newest == 6 + len(values)


def test_what_waits_is_released_so_that_it_is_next_in_its_list(stage: Stage) -> None:
    """Each release pushes to the head, so the last to run is released first."""
    for token in (1, 2, 3):
        stage.accept(token)
    stage.inflight.release_waiting()
    assert stage.released() == [3, 2, 1]
    assert len(stage.inflight.buffer) == 0
    assert set(stage.inflight.held) == {1, 2, 3}


def test_a_suspect_starts_only_when_nothing_else_is_held(stage: Stage) -> None:
    stage.accept(1)
    running = stage.next()
    stage.accept(2, crashes=2)
    stage.accept(3)
    assert stage.inflight.isolating
    assert not stage.inflight.isolate()
    assert stage.released() == [3]
    stage.inflight.held.pop(3)
    stage.completer.put(SETTLER.settle(running, Complete(1)))
    stage.settled(stage.batch(), b"d", 1_000)
    assert stage.inflight.isolate()
    assert stage.next().token == 2
    assert stage.inflight.isolating


def test_of_several_suspects_one_stays(stage: Stage) -> None:
    for token in (1, 2, 3):
        stage.accept(token, crashes=3)
    assert not stage.inflight.isolate()
    assert sorted(stage.released()) == [2, 3]
    for token in (2, 3):
        stage.inflight.held.pop(token)
    assert stage.inflight.isolate()
    assert stage.next().token == 1


def test_suspects_that_are_set_aside_come_back_one_by_one_in_their_order(stage: Stage) -> None:
    """Together they would all come to the same process again, which can start one of them."""
    for token in range(1, 31):
        stage.accept(token, crashes=2)
    stage.inflight.set_suspects_aside(0.5)
    waits_ms = {
        settlement.delivery.token: int(unpack(settlement.packed)[1]) for settlement in stage.batch().settlements
    }
    assert [waits_ms[token] for token in (1, 2, 3)] == [500, 550, 600]
    assert waits_ms[30] == 1500


def test_a_first_crash_is_no_suspicion(stage: Stage) -> None:
    stage.accept(1, crashes=1)
    assert not stage.inflight.isolating
    assert not stage.inflight.isolate()
    assert stage.next().token == 1


def test_suspects_are_released_with_the_rest(stage: Stage) -> None:
    stage.accept(1, crashes=2)
    stage.accept(2)
    stage.inflight.release_waiting()
    assert sorted(stage.released()) == [1, 2]
    assert not stage.inflight.isolate()


def test_tokens_that_nobody_knows_are_released_and_known_ones_are_not(stage: Stage) -> None:
    stage.accept(1)
    stage.inflight.release_unknown(stage.inflight.incarnation, [1, 8, 9])
    assert sorted(stage.released()) == [8, 9]


def test_a_new_incarnation_knows_nothing_of_the_old_one(stage: Stage) -> None:
    stage.accept(1)
    stage.accept(2, crashes=2)
    stage.next()
    old = stage.inflight.incarnation
    stage.inflight.release_waiting()
    stage.inflight.renew()
    assert stage.inflight.incarnation != old
    assert not stage.inflight.held
    assert not stage.inflight.outbox
    assert not stage.inflight.isolating
    stage.inflight.release_unknown(old, [4])
    assert not stage.inflight.outbox
    assert stage.inflight.vacant
