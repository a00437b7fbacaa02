"""streaQ: concurrency 100, prefetch 100, results not kept (`ttl=0`), uvloop.

In the recovery measure `idle_timeout` is 2 s.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streaq import Worker

from benchmarks.contestants.protocol import Order, Payload, Sender, noop, noop_sync


def _application(order: Order) -> tuple[Any, Any]:
    worker: Any = Worker(
        order.url,
        concurrency=order.slots or 100,
        prefetch=order.slots or 100,
        idle_timeout=2 if order.kind == "hold" else 60,
        handle_signals=False,
        anyio_kwargs={"use_uvloop": True},
        serializer=json.dumps,
        deserializer=json.loads,
    )
    return worker, worker.task(ttl=0, silent=True)(noop_sync if order.sync else noop)


def work(order: Order) -> None:
    """Run a worker."""
    logging.disable(logging.INFO)
    worker, _ = _application(order)
    worker.run_sync()


@asynccontextmanager
async def open_sender(order: Order) -> AsyncIterator[Sender]:
    """Enqueue, many in a pipeline."""
    worker, task = _application(order)

    async def one(payload: Payload) -> None:
        await task.enqueue(payload)

    async def many(payloads: list[Payload]) -> None:
        await worker.enqueue_many([task.enqueue(payload) for payload in payloads])

    async with worker:
        yield Sender(one, many)
