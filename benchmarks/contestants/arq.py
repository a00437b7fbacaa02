"""arq: polls every 10 ms (its default is 500 ms), 100 jobs at once, results not kept, uvloop, hiredis.

In the recovery measure the job's timeout is 2 s, after which (and 10 s more, which are fixed) arq runs it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from arq import Worker, create_pool
from arq.connections import RedisSettings

from benchmarks.contestants import protocol
from benchmarks.contestants.protocol import Order, Payload, Sender


async def noop(_context: Any, payload: Payload) -> None:
    """Do nothing, asynchronously; arq calls a job with its context."""
    await protocol.noop(payload)


def work(order: Order) -> None:
    """Run a worker."""
    logging.disable(logging.INFO)

    async def main() -> None:
        worker = Worker(
            [noop],
            redis_settings=RedisSettings.from_dsn(order.url),
            poll_delay=0.01,
            max_jobs=order.slots or 100,
            keep_result=0,
            job_timeout=2 if order.kind == "hold" else 300,
            log_results=False,
            handle_signals=False,
        )
        await worker.async_run()
        await asyncio.Event().wait()

    uvloop.run(main())


@asynccontextmanager
async def open_sender(order: Order) -> AsyncIterator[Sender]:
    """Enqueue; there is no call for many."""
    pool = await create_pool(RedisSettings.from_dsn(order.url))

    async def one(payload: Payload) -> None:
        await pool.enqueue_job("noop", payload)

    yield Sender(one)
    await pool.aclose()
