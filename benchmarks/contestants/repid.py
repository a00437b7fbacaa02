"""repid on Redis streams: 100 messages per read, 1,000 tasks at once, its basic converter, uvloop, hiredis.

Abandoned messages are taken over only if asked for; the recovery measure asks: every second, those idle for 2 s.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from repid import BasicConverter, RedisServer, Repid, Router

from benchmarks.contestants.protocol import Order, Payload, Sender, noop, noop_sync


def _application(order: Order) -> Repid:
    application = Repid()
    takeover = {"claim_interval": 1.0, "min_idle_ms": 2000} if order.kind == "hold" else {}
    server = RedisServer(order.url, batch_size=min(100, order.slots or 100), **takeover)
    application.servers.register_server("default", server, is_default=True)
    return application


def work(order: Order) -> None:
    """Run a worker that serves both processors."""

    async def main() -> None:
        application = _application(order)
        router = Router(converter=BasicConverter, run_in_process=False)
        router.actor(noop)
        router.actor(noop_sync)
        application.include_router(router)
        async with application.servers.default.connection():
            await application.run_worker(tasks_limit=order.slots or 1000)
            await asyncio.Event().wait()

    uvloop.run(main())


@asynccontextmanager
async def open_sender(order: Order) -> AsyncIterator[Sender]:
    """Send JSON messages; there is no call for many."""
    application = _application(order)
    headers = {"topic": "noop_sync" if order.sync else "noop"}

    async def one(payload: Payload) -> None:
        body = json.dumps({"payload": payload}).encode()
        await application.send_message(channel="default", payload=body, headers=headers)

    async with application.servers.default.connection():
        yield Sender(one)
