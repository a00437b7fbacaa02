"""FastStream on a Redis list, its fastest way that handles one message per call: polls every 10 ms, uvloop, hiredis.

A list acks nothing: a message is lost with its worker. The variant "stream" uses a stream with a consumer group, 100
messages per read, blocking reads, up to 100 handlers at once; in the recovery measure a second subscriber takes over
what has been idle for 2 s.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.redis import ListSub, RedisBroker, StreamSub
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from benchmarks.contestants.protocol import Order, Payload, Sender, noop, noop_sync


def work(order: Order) -> None:
    """Run an application with one subscriber, plus the one that takes over in the recovery measure."""

    async def main() -> None:
        broker = RedisBroker(order.url, logger=None, apply_types=False)
        handler = noop_sync if order.sync else noop
        for subscription, options in _subscriptions(order):
            broker.subscriber(**subscription, **options)(handler)
        await FastStream(broker).run()

    uvloop.run(main())


def _subscriptions(order: Order) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if order.variant != "stream":
        return [({"list": ListSub("bench", polling_interval=0.01)}, {})]
    group: dict[str, Any] = {"group": "bench", "consumer": "reader", "last_id": ">", "polling_interval": 1000}
    options: dict[str, Any] = {"max_workers": order.slots or 100, "ack_policy": AckPolicy.ACK}
    found = [({"stream": StreamSub("bench", max_records=100, **group)}, options)]
    if order.kind == "hold":
        takeover = StreamSub("bench", **{**group, "consumer": "taker", "polling_interval": 500}, min_idle_time=2000)
        found.append(({"stream": takeover}, options))
    return found


async def _make_group(order: Order) -> None:
    """Make the group read from the stream's beginning: FastStream makes it read what comes after its own start."""
    async with Redis.from_url(order.url) as client:
        with contextlib.suppress(ResponseError):  # it exists
            await client.xgroup_create("bench", "bench", id="0", mkstream=True)


@asynccontextmanager
async def open_sender(order: Order) -> AsyncIterator[Sender]:
    """Publish; many only to a list."""
    async with RedisBroker(order.url, logger=None) as broker:
        await broker.start()
        if order.variant == "stream":
            await _make_group(order)

        async def one(payload: Payload) -> None:
            await broker.publish(payload, list="bench")

        async def one_to_stream(payload: Payload) -> None:
            await broker.publish(payload, stream="bench")

        async def many(payloads: list[Payload]) -> None:
            await broker.publish_batch(*payloads, list="bench")

        yield Sender(one_to_stream) if order.variant == "stream" else Sender(one, many)
