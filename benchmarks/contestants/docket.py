"""Docket (pydocket): state of finished executions not kept, automatic tasks off, uvloop, hiredis.

Concurrency is 50, since 100 exhaust its pool of connections. It looks for due work every 10 ms (its default is 250 ms).
In the recovery measure `redelivery_timeout` is 2 s.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import uvloop
from docket import Docket, Worker

from benchmarks.contestants.protocol import Order, Payload, Sender, noop, noop_sync


def _docket(order: Order) -> Any:
    return Docket("bench", url=order.url, execution_ttl=timedelta(0))


def work(order: Order) -> None:
    """Run a worker with both functions."""
    logging.disable(logging.INFO)

    async def main() -> None:
        async with _docket(order) as docket:
            docket.register(noop)
            docket.register(noop_sync)
            worker = Worker(
                docket,
                concurrency=order.slots or 50,
                redelivery_timeout=timedelta(seconds=2 if order.kind == "hold" else 300),
                minimum_check_interval=timedelta(milliseconds=10),
                scheduling_resolution=timedelta(milliseconds=250),
                schedule_automatic_tasks=False,
            )
            async with worker:
                await worker.run_forever()

    uvloop.run(main())


@asynccontextmanager
async def open_sender(order: Order) -> AsyncIterator[Sender]:
    """Add, many in pipelines."""
    function = noop_sync if order.sync else noop
    async with _docket(order) as docket:

        async def one(payload: Payload) -> None:
            await docket.add(function)(payload)

        async def many(payloads: list[Payload]) -> None:
            await docket.add_many([docket.call(function)(payload) for payload in payloads])

        yield Sender(one, many)
