"""What the contract's tests share: a running worker, a journal to await, a logger that keeps lines. Tests nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.kit.waiting import DEADLINE_S

SRC = Path(__file__).parents[2] / "src"
ENDS_WITHIN_S = 20.0
SERVER_VARIABLES = ("QUEUE_SYSTEM_REDIS_URL", "REDIS_URL", "QUEUE_SYSTEM_DATA_DIR")


@contextlib.asynccontextmanager
async def running(config: QueueConfig, max_workers: int = 5, work_timeout: float = 30.0) -> AsyncIterator[QueueWorker]:
    """A started worker. At the end it is stopped, so that all it handled is settled."""
    worker = QueueWorker(config=config, max_workers=max_workers, work_timeout=work_timeout)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


class Journal:
    """What processors and callbacks were called with, in order. Noted from any thread, awaited in the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._notes: asyncio.Queue[Any] = asyncio.Queue()

    def note(self, value: Any) -> None:
        """Add a value."""
        self._loop.call_soon_threadsafe(self._notes.put_nowait, value)

    async def take(self, count: int) -> list[Any]:
        """Return the next `count` values; TimeoutError if they do not come."""
        async with asyncio.timeout(DEADLINE_S):
            return [await self._notes.get() for _ in range(count)]

    async def next(self) -> Any:
        """Return the next value."""
        return (await self.take(1))[0]


def documents(client: redis.Redis, key: str) -> list[dict[str, Any]]:
    """The documents of a list, the one that was put in last first."""
    items: Any = client.lrange(key, 0, -1)
    return [json.loads(item) for item in items]


def counted(config: QueueConfig, name: str) -> int:
    """A counter of the whole fleet."""
    count: int = QueueManager(config=config).get_queue_status()["metrics"].get(name, 0)
    return count


@contextlib.contextmanager
def python(*arguments: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that is started in `cwd` and finds modules there; killed at the end if it still runs.

    It sees no variable that names a server, unless `variables` gives it one.
    """
    environment = {name: value for name, value in os.environ.items() if name not in SERVER_VARIABLES}
    environment |= {"PYTHONPATH": os.pathsep.join([str(SRC), str(cwd)]), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=ENDS_WITHIN_S)  # what it has started may hold the pipes
