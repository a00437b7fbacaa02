"""What becomes of settlements: they are sent, answered and booked, and a callback comes back as a delivery."""

from __future__ import annotations

import pytest

from queue_system.execution.settlement import Timing
from queue_system.model.verdict import Complete, Fail
from tests.unit.execution.support import SETTLER, Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_what_was_settled_is_held_no_longer_and_counted(stage: Stage) -> None:
    stage.accept(1)
    stage.accept(2)
    stage.completer.put(SETTLER.settle(stage.next(), Complete(1), Timing(1, 2, 0.5)))
    stage.completer.put(SETTLER.settle(stage.next(), Fail("boom", "E"), Timing(1, 2, 0.5)))
    stage.settled(stage.batch(), b"dd", 1_000)
    assert not stage.inflight.held
    snapshot = stage.metrics.snapshot()
    assert (snapshot["processed"], snapshot["failed"], snapshot["avg_process_time"]) == (1, 1, 500.0)


def test_a_settlement_that_was_lost_counts_nothing_but_the_loss(stage: Stage) -> None:
    stage.accept(1, on_success="done")
    stage.completer.put(SETTLER.settle(stage.next(), Complete(1)))
    stage.settled(stage.batch(), b"l", 1_000)
    assert not stage.inflight.held
    assert len(stage.inflight.buffer) == 0
    snapshot = stage.metrics.snapshot()
    assert (snapshot["processed"], snapshot["lease_lost"]) == (0, 1)


def test_what_is_handed_back_too_late_is_no_lost_lease(stage: Stage) -> None:
    stage.accept(1)
    stage.inflight.release_waiting()
    stage.settled(stage.batch(), b"l", 1_000)
    assert not stage.inflight.held
    assert stage.metrics.snapshot().get("lease_lost", 0) == 0


def test_a_callback_comes_back_as_a_delivery_under_the_same_token(stage: Stage) -> None:
    stage.accept(5, on_success="done")
    stage.completer.put(SETTLER.settle(stage.next(), Complete({"a": 1})))
    stage.settled(stage.batch(), b"d", 1_000)
    callback = stage.next()
    assert (callback.token, callback.operation.phase, callback.operation.result) == (5, "on_success", {"a": 1})
    assert set(stage.inflight.held) == {5}
    stage.completer.put(SETTLER.settle(callback, Complete(None)))
    stage.settled(stage.batch(), b"d", 1_000)
    assert not stage.inflight.held
    assert stage.metrics.snapshot()["processed"] == 1


def test_a_note_that_an_operation_runs_settles_nothing(stage: Stage) -> None:
    stage.accept(1)
    stage.completer.note_running(stage.next(), 500, 1_000)
    batch = stage.batch()
    assert [settlement.verb for settlement in batch.settlements] == ["running"]
    stage.settled(batch, b"d", 1_000)
    assert set(stage.inflight.held) == {1}


def test_no_note_is_written_for_a_callback(stage: Stage) -> None:
    stage.accept(1, phase="on_success", on_success="done")
    stage.completer.note_running(stage.next(), 500, 1_000)
    assert not stage.inflight.outbox


def test_a_settlement_of_a_lost_incarnation_is_dropped(stage: Stage) -> None:
    stage.accept(1)
    running = stage.next()
    stage.inflight.renew()
    stage.completer.put(SETTLER.settle(running, Complete(1)))
    assert not stage.completer.unsettled
    assert stage.completer.choose() is None


def test_a_batch_is_chosen_again_until_it_was_answered(stage: Stage) -> None:
    """What is settled meanwhile waits for the next one; each has an id of its own."""
    stage.accept(1)
    stage.accept(2)
    stage.completer.put(SETTLER.settle(stage.next(), Complete(1)))
    first = stage.completer.choose()
    assert first is not None
    stage.completer.put(SETTLER.settle(stage.next(), Complete(1)))
    assert stage.completer.choose() is first
    assert stage.completer.unsettled == 2
    stage.completer.answered(first, b"d", stage.inflight.incarnation)
    second = stage.completer.choose()
    assert second is not None
    assert second.serial > first.serial
    assert [settlement.delivery.token for settlement in second.settlements] == [2]


@pytest.mark.parametrize("codes", [b"lost", b"", b"dd"])
def test_an_answer_without_a_code_for_each_settlement_means_that_the_lease_is_lost(stage: Stage, codes: bytes) -> None:
    stage.accept(1)
    stage.completer.put(SETTLER.settle(stage.next(), Complete(1)))
    batch = stage.batch()
    stage.completer.answered(batch, codes, stage.inflight.incarnation)
    assert stage.lost == [stage.inflight.incarnation]
    assert not stage.inflight.arrivals


def test_an_answer_to_a_lost_incarnation_says_nothing(stage: Stage) -> None:
    stage.accept(1)
    stage.completer.put(SETTLER.settle(stage.next(), Complete(1)))
    batch, old = stage.batch(), stage.inflight.incarnation
    stage.inflight.renew()
    stage.completer.renew()
    stage.completer.answered(batch, b"lost", old)
    assert not stage.lost
