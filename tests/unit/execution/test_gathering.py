"""What ends the wait of settlements for a larger turn: time, a slot without work, a settlement for each slot."""

from __future__ import annotations

import asyncio

import pytest

from queue_system.execution.delivery import Buffer
from queue_system.execution.dispatcher import Dispatcher
from queue_system.execution.outbox import Outbox
from queue_system.model.verdict import Complete
from tests.unit.execution.support import SETTLER, make_delivery

LONG_S = 60.0


@pytest.fixture
async def dispatcher() -> Dispatcher:
    """One whose lease surely holds, without any work."""
    dispatcher = Dispatcher(Buffer())
    dispatcher.valid_until = float("inf")
    return dispatcher


async def gathering(dispatcher: Dispatcher) -> asyncio.Task[None]:
    """Begin to wait."""
    task = asyncio.ensure_future(dispatcher.gather(LONG_S))
    await asyncio.sleep(0)
    return task


async def test_time_ends_it(dispatcher: Dispatcher) -> None:
    await asyncio.wait_for(dispatcher.gather(0.001), LONG_S)


async def test_a_slot_that_finds_no_work_ends_it(dispatcher: Dispatcher) -> None:
    waits = await gathering(dispatcher)
    slot = asyncio.ensure_future(dispatcher.take())
    await asyncio.wait_for(waits, LONG_S)
    slot.cancel()


async def test_as_many_settlements_as_there_are_slots_end_it(dispatcher: Dispatcher) -> None:
    outbox = Outbox(enough=2, filled=dispatcher.stir)
    waits = await gathering(dispatcher)
    for token in (1, 2):
        assert not waits.done()
        outbox.put(SETTLER.settle(make_delivery(token), Complete(None)))
    await asyncio.wait_for(waits, LONG_S)


async def test_what_came_meanwhile_makes_no_empty_turn_after_the_one_that_follows(dispatcher: Dispatcher) -> None:
    waits = await gathering(dispatcher)
    dispatcher.changed.set()
    dispatcher.stir()
    await waits
    assert not dispatcher.changed.is_set()


async def test_nothing_breaks_when_nobody_waits(dispatcher: Dispatcher) -> None:
    dispatcher.stir()
    await asyncio.wait_for(dispatcher.gather(0.001), LONG_S)
