"""Handles one item outside the turns, as the specification's `_process_queue_item` does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from queue_system.execution.delivery import Delivery
from queue_system.execution.ending import Ending
from queue_system.execution.engine import Engine
from queue_system.execution.slots import Slot, start_apart

_STEP_S = 0.005

Handle: TypeAlias = Callable[[Engine, Slot, Delivery], Coroutine[Any, Any, None]]


async def handle_one(
    engine: Engine, ending: Ending, worker_id: int, adopt: bytes, begin: Callable[[], None], handle: Handle
) -> bool:
    """Claim a single item, or adopt it, and handle it in the only slot; False when there is none.

    `begin` is called once the worker is registered. A callback of the item is handled, too. `worker_id` is for the log.
    """
    inflight = engine.inflight
    await engine.register()
    begin()
    delivery = await engine.claim_one(adopt)
    found = bool(inflight.held)
    while inflight.held or inflight.outbox:
        if delivery is not None:
            engine.log.debug("handling one item", worker_id=worker_id, operation_id=delivery.operation_id)
            await _handle_apart(engine, ending, delivery, handle)
        await engine.turn()
        delivery = inflight.buffer.take()
        if delivery is None and inflight.suspected:
            await asyncio.sleep(_STEP_S)  # until it may start, or has waited for long enough
    return found


async def _handle_apart(engine: Engine, ending: Ending, delivery: Delivery, handle: Handle) -> None:
    """Handle a delivery in a task of its own, so that a cancellation of the caller is not taken for another."""
    (slot,) = engine.executor.slots
    slot.delivery = delivery
    task = start_apart(slot, handle(engine, slot, delivery), "queue-system-item")
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await ending.end_tasks(None)
        raise
    slot.delivery = None
    task.result()
    if slot.exit is not None:
        raise slot.exit
