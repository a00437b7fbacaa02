"""The queue of an application: there from its startup to its shutdown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.requests import HTTPConnection

from queue_system.config import QueueConfig
from queue_system.manager import QueueManager
from queue_system.validation import check_instance
from queue_system.worker import QueueWorker


def lifespan(
    config: QueueConfig, *, worker: QueueWorker | None = None
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Return the `lifespan` of a FastAPI or Starlette application whose handlers use a queue.

    Handlers find a QueueManager as `request.state.queue`; connections are closed at shutdown. A worker that is given
    starts and stops with the application, in its event loop: good for small services; others run workers of their own.
    """
    check_instance("config", config, QueueConfig)
    if worker is not None:
        check_instance("worker", worker, QueueWorker)

    @asynccontextmanager
    async def run(_app: Any) -> AsyncIterator[dict[str, Any]]:
        if worker is not None:
            await worker.start()
        try:
            yield {"queue": QueueManager(config)}
        finally:
            if worker is not None:
                await worker.stop()
            await config.aclose()

    return run


async def queue(connection: HTTPConnection) -> QueueManager:
    """Return the application's queue: for FastAPI, `Annotated[QueueManager, Depends(queue)]`.

    Raises RuntimeError if the application was not given `lifespan(config)`, or if its server serves no lifespan.
    """
    try:
        found: QueueManager = connection.state.queue
    except AttributeError:
        raise RuntimeError(
            "the application has no queue: create it with lifespan=queue_system.web.lifespan(config)"
        ) from None
    return found
