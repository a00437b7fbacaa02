"""taskiq with taskiq-redis: the list broker, which acks nothing, or with the variant "stream" the stream broker.

No result backend, 100 tasks at once, 100 prefetched, no validation of parameters, uvloop, hiredis. In the recovery
measure the stream broker takes over what has been idle for 2 s and its lock frees itself after 2 s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from benchmarks.contestants.protocol import Order, Sender, noop, noop_sync


def _broker(order: Order) -> Any:
    if order.variant != "stream":
        return ListQueueBroker(order.url)
    takeover = {"idle_timeout": 2000, "unacknowledged_lock_timeout": 2.0} if order.kind == "hold" else {}
    return RedisStreamBroker(order.url, consumer_id="0", xread_count=100, **takeover)


def work(order: Order) -> None:
    """Run a receiver, as the command `taskiq worker` runs it."""
    at_once = order.slots or 100

    async def main() -> None:
        broker = _broker(order)
        broker.task(task_name="noop")(noop)
        broker.task(task_name="noop_sync")(noop_sync)
        await run_receiver_task(
            broker,
            run_startup=True,
            validate_params=False,
            max_async_tasks=at_once,
            max_prefetch=at_once,
            sync_workers=10,
        )

    uvloop.run(main())


@asynccontextmanager
async def open_sender(order: Order) -> AsyncIterator[Sender]:
    """Kick tasks; there is no call for many."""
    broker = _broker(order)
    function = noop_sync if order.sync else noop
    task = broker.task(task_name=function.__name__)(function)
    await broker.startup()
    try:
        yield Sender(task.kiq)
    finally:
        await broker.shutdown()
