"""SAQ: concurrency 100, results not kept (`ttl=-1`), up to 100 Redis operations at once, uvloop, hiredis.

In the recovery measure each job has a heartbeat of 2 s and stuck jobs are swept for every second.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from saq import Queue, Worker

from benchmarks.contestants import protocol
from benchmarks.contestants.protocol import Order, Payload, Sender


async def noop(_context: Any, *, payload: Payload) -> None:
    """Do nothing, asynchronously; SAQ calls a job with its context."""
    await protocol.noop(payload)


def noop_sync(_context: Any, *, payload: Payload) -> None:
    """Do nothing, in a thread."""
    protocol.noop_sync(payload)


def _queue(order: Order) -> Any:
    return Queue.from_url(order.url, max_concurrent_ops=100)


def work(order: Order) -> None:
    """Run a worker with both functions."""
    logging.disable(logging.INFO)

    async def main() -> None:
        timers: Any = {"sweep": 1} if order.kind == "hold" else None
        worker: Any = Worker(_queue(order), functions=[noop, noop_sync], concurrency=order.slots or 100, timers=timers)
        await worker.start()

    uvloop.run(main())


@asynccontextmanager
async def open_sender(order: Order) -> AsyncIterator[Sender]:
    """Enqueue; there is no call for many."""
    queue = _queue(order)
    name = "noop_sync" if order.sync else "noop"
    options = {"heartbeat": 2, "retries": 10} if order.kind == "hold" else {}

    async def one(payload: Payload) -> None:
        await queue.enqueue(name, payload=payload, ttl=-1, **options)

    yield Sender(one)
    await queue.disconnect()
