"""What flow tests share: a log to wait on, a worker that runs inside a `with`, and readings of what is in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import redis

from queue_system import QueueConfig, QueueWorker

SOON_S = 5.0

MakeConfig = Callable[..., QueueConfig]


class Inbox:
    """Collects what processors and callbacks receive, from any thread, and lets a test wait for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, value: Any) -> None:
        """Add a value. Thread-safe."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, value)

    async def next(self) -> Any:
        """Wait for the next value."""
        return await asyncio.wait_for(self._queue.get(), SOON_S)

    async def take(self, count: int) -> list[Any]:
        """Wait for the next `count` values."""
        return [await self.next() for _ in range(count)]

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return self._queue.empty()


@contextlib.asynccontextmanager
async def running(worker: QueueWorker) -> AsyncIterator[QueueWorker]:
    """Start a worker and stop it at the end; after that all it settled is in Redis."""
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


def key_space(client: redis.Redis, prefix: str) -> dict[bytes, Any]:
    """Every key under the prefix with its value as the server dumps it."""
    return {key: client.dump(key) for key in sorted(client.scan_iter(match=f"{prefix}*", count=1000))}


def letters(client: redis.Redis, key: str) -> list[dict[str, Any]]:
    """The dead letters of a list, the newest first."""
    found: Any = client.lrange(key, 0, -1)
    return [json.loads(letter) for letter in found]


async def next_letter(client: redis.Redis, key: str) -> dict[str, Any]:
    """Wait until a dead letter is in a list and return the newest; it stays there."""
    letter: Any = await asyncio.to_thread(client.blmove, key, key, int(SOON_S), "LEFT", "LEFT")
    assert letter is not None, f"no letter came to {key}"
    return dict(json.loads(letter))


@dataclass(frozen=True)
class Record:
    """A record of an operation as it stands in Redis."""

    status: str
    queue: str
    deduplication_key: str
    attempts: int
    body: Any
    ttl_ms: int


def read_record(client: redis.Redis, config: QueueConfig, operation_id: str) -> Record:
    """Read the record of an operation that has one."""
    key = config.keys.operation(operation_id)
    raw: Any = client.get(key)
    ttl: Any = client.pttl(key)
    line, _, body = raw.decode().partition("\n")
    status, _, _, queue, dedup_key, *rest = line.split("\t")
    return Record(status, queue, dedup_key, int(rest[0]) if rest else 0, json.loads(body) if body else None, ttl)
