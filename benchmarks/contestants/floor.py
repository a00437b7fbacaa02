"""The floor: what redis-py and Python can do at best with no promises beyond an in-flight hash.

The worker claims 100 items per script into an in-flight hash, decodes each with msgspec, awaits a no-op and acks 100
per script; acking and claiming go in one round trip. Enqueueing is a bare `LPUSH` of ready bytes by redis-py with
hiredis, in a batch one variadic `LPUSH` of 1,000. `floor, BLPOP` is a bare loop of `BLPOP`, for the latency alone;
`floor, no uvloop` runs in asyncio's own event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import msgspec
import redis
import redis.asyncio
import uvloop

from benchmarks.contestants.protocol import PROBE, Order, Payload, Sender, noop

_KEY = "floor:ready"
_CLAIM = """
if #ARGV > 0 then redis.call('HDEL', KEYS[2], unpack(ARGV)) end
local items, pairs_of = redis.call('LPOP', KEYS[1], 100), {}
if not items then return pairs_of end
local first = redis.call('INCRBY', KEYS[3], #items) - #items
for i, item in ipairs(items) do pairs_of[2 * i - 1], pairs_of[2 * i] = first + i, item end
redis.call('HSET', KEYS[2], unpack(pairs_of))
return pairs_of
"""
_TAIL = (
    b',"operation_id":"0123456789abcdef0123456789abcdef","processor":"noop","timestamp":1700000000.123,"attempts":0}'
)


def work(order: Order) -> None:
    """Run the bare loop that the variant names."""
    if order.variant == "wake":
        _wake(order)
    elif order.variant == "asyncio":
        asyncio.run(_claim(order))
    else:
        uvloop.run(_claim(order))


def _wake(order: Order) -> None:
    with closing(redis.Redis.from_url(order.url)) as client:
        while True:
            _, item = client.blpop([_KEY])  # type: ignore[misc]
            PROBE.count(json.loads(item)["entity"])


async def _claim(order: Order) -> None:
    client: Any = redis.asyncio.Redis.from_url(order.url)
    script = await client.script_load(_CLAIM)
    decode = msgspec.json.Decoder().decode
    tokens: list[int] = []
    while True:
        reply = await client.evalsha(script, 3, _KEY, "floor:inflight", "floor:token", *tokens)
        tokens = reply[::2]
        if not reply:
            await asyncio.sleep(0.05)
        for item in reply[1::2]:
            await noop(decode(item)["entity"])


@contextmanager
def open_sender(order: Order) -> Iterator[Sender]:
    """Push ready bytes; only those of the latency measure are encoded, as they carry the time."""
    ready = b'{"entity":{"n":1}' + _TAIL

    def encode(payload: Payload) -> bytes:
        return ready if len(payload) == 1 else b'{"entity":' + json.dumps(payload).encode() + _TAIL

    with closing(redis.Redis.from_url(order.url)) as client:
        yield Sender(
            one=lambda payload: client.lpush(_KEY, encode(payload)),
            many=lambda payloads: client.lpush(_KEY, *[ready] * len(payloads)),
        )
