"""When a worker claims: a claim keeps its id until it is answered, and waits for the marker where nothing is left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from queue_system import QueueConfig, QueueWorker
from queue_system.broker.replies import Claimed
from queue_system.clock import SYSTEM_CLOCK
from queue_system.execution.claimer import Claim
from queue_system.execution.ending import Ending
from queue_system.execution.engine import Engine

VALUE = b'normal:p\n{"operation_id":"1","processor":"p"}'


class Stage:
    """An engine that never reaches a server, with a lease as if it had."""

    def __init__(self) -> None:
        config = QueueConfig(redis_url="redis://127.0.0.1:1", lease_seconds=60.0)
        self.engine: Engine = QueueWorker(config)._open_engine(2)
        self.claimer = self.engine.claimer
        self.engine.confirm(SYSTEM_CLOCK.monotonic())

    def choose(self) -> Claim | None:
        return self.claimer.choose(registered=True)

    def answer(self, *values: bytes, more: bool = False, left_behind: bool = False) -> None:
        self.claimer.answered(Claimed(1_000, -1, more, (), 7, values, left_behind), self.engine.incarnation)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A worker of two slots, of which none has taken anything."""
    stage = Stage()
    yield stage
    await Ending(stage.engine).discard()


async def test_a_claim_is_chosen_again_until_it_was_answered(stage: Stage) -> None:
    claim = stage.choose()
    assert claim is not None
    assert claim[1] == 2
    assert stage.choose() == claim
    stage.answer(more=True)
    assert not stage.claimer.awaits_answer
    following = stage.choose()
    assert following is not None
    assert following[0] != claim[0]


async def test_nothing_is_claimed_before_the_server_knows_the_worker(stage: Stage) -> None:
    assert stage.claimer.choose(registered=False) is None


async def test_nothing_is_claimed_while_something_has_yet_to_be_handed_back(stage: Stage) -> None:
    """A claim would take what comes after it in its list, and run that first."""
    stage.choose()
    stage.answer(VALUE, VALUE, VALUE, more=True)
    stage.engine._take_in()
    stage.claimer.release_waiting()
    assert stage.choose() is None
    assert stage.engine.completer.choose() is not None  # from here on it travels before the claim
    assert stage.choose() is not None


async def test_nothing_is_claimed_while_the_lease_is_in_doubt(stage: Stage) -> None:
    stage.engine.dispatcher.valid_until = 0.0
    assert stage.choose() is None


async def test_where_nothing_is_left_a_claim_waits_for_the_marker(stage: Stage) -> None:
    """On a connection of its own: turns go on meanwhile, and claim no more."""
    assert stage.choose() is not None
    stage.answer()
    assert stage.choose() is None
    assert stage.claimer.long_poll.waits


async def test_where_only_queues_at_rest_have_something_left_no_claim_takes_their_marker(stage: Stage) -> None:
    assert stage.choose() is not None
    stage.answer(left_behind=True)
    assert stage.choose() is None
    assert not stage.claimer.long_poll.waits


async def test_what_a_claim_brought_counts_before_it_is_taken_in(stage: Stage) -> None:
    """Else the next turn would claim for the same slots."""
    assert stage.choose() is not None
    stage.answer(VALUE, VALUE, more=True)
    assert not stage.engine.held
    assert stage.choose() is None
    assert stage.engine.unsettled
    assert stage.engine.inflight.arrivals.take_in()
    assert set(stage.engine.held) == {7, 8}


async def test_an_answer_that_knows_no_such_worker_loses_the_lease(stage: Stage) -> None:
    incarnation = stage.engine.incarnation
    assert stage.choose() is not None
    stage.claimer.answered(None, incarnation)
    assert stage.engine.incarnation != incarnation
    assert not stage.claimer.awaits_answer


async def test_a_worker_that_stops_claims_no_more(stage: Stage) -> None:
    await stage.claimer.stop()
    assert stage.choose() is None
    assert not stage.engine.dispatcher.is_open
