"""queue_system as it is installed: `max_workers=100`, uvloop, logging at WARNING, every promise on.

At least once, tokens, a status record with TTL for every operation, retries and timeouts are as by default. The lease
is the default (15 s) except in the recovery measure, where it is 2 s, as short as that of the peers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from benchmarks.contestants.protocol import Order, Sender, noop, noop_sync
from queue_system import QueueConfig, QueueManager, QueueWorker


def _config(order: Order) -> QueueConfig:
    logging.basicConfig(level=logging.WARNING)
    lease_seconds = 2.0 if order.kind == "hold" else 15.0
    return QueueConfig(redis_url=order.url, logger=logging.getLogger("bench"), lease_seconds=lease_seconds)


def work(order: Order) -> None:
    """Run a worker in uvloop's event loop, with the variant "asyncio" in the standard one.

    The variant "observed" writes JSON lines of INFO to stderr and feeds Prometheus metrics.
    """

    async def main() -> None:
        config = _config(order)
        if order.variant == "observed":
            _observe(config)
        worker = QueueWorker(config, max_workers=order.slots or 100)
        await worker.start()
        await asyncio.Event().wait()

    if order.variant == "asyncio":
        asyncio.run(main())
    else:
        uvloop.run(main())


def _observe(config: QueueConfig) -> None:
    from queue_system import logs  # noqa: PLC0415 - the other variants are measured without
    from queue_system.monitoring import prometheus  # noqa: PLC0415 - as above

    logging.getLogger().handlers.clear()
    logs.configure("json", "INFO")
    prometheus.enable(config)


@contextmanager
def open_sender(order: Order) -> Iterator[Sender]:
    """Enqueue by the synchronous manager."""
    manager = QueueManager(_config(order))
    processor = noop_sync if order.sync else noop
    yield Sender(
        one=lambda payload: manager.enqueue(payload, processor),
        many=lambda payloads: manager.enqueue_batch(payloads, processor),
    )
