"""Workers that run inside a `with`, in this process, and what comes of a run. Never starts a process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import redis

from queue_system import QueueConfig, QueueWorker
from tests.kit.contents import next_letter


@contextlib.asynccontextmanager
async def running(worker: QueueWorker) -> AsyncIterator[QueueWorker]:
    """Start a worker and stop it at the end; after that all it settled is in Redis."""
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


async def first_letter(
    config: QueueConfig, client: redis.Redis, source: str = "failures", **settings: Any
) -> dict[str, Any]:
    """Run a worker with these settings until there is a dead letter, and return that."""
    async with running(QueueWorker(config, **settings)):
        return await next_letter(client, config.keys.prefix + source)
