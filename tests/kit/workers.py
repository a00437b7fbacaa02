"""A worker that runs inside a `with`, in this process. Never makes one itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from queue_system import QueueWorker


@contextlib.asynccontextmanager
async def running(worker: QueueWorker) -> AsyncIterator[QueueWorker]:
    """Start a worker and stop it at the end; after that all it settled is in Redis."""
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
