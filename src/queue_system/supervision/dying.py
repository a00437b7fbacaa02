"""Lets an end of a worker's process that nobody asked for count as the worker's death. Never ends a process."""

from __future__ import annotations

import asyncio

from queue_system.worker import QueueWorker


def own_process(worker: QueueWorker) -> None:
    """Let whatever cancels the worker's tasks count as its death: nobody else has a program in this process."""
    if worker._engine is not None:  # noqa: SLF001 - there is no other writer
        worker._engine.dies = True  # noqa: SLF001


async def die(worker: QueueWorker) -> None:
    """End a worker whose event loop was ended, or whose tasks were cancelled; what runs there is not handed back."""
    fetching = worker._fetching  # noqa: SLF001 - its end is the worker's
    if fetching is not None and not fetching.done():
        fetching.cancel()
        await asyncio.wait({fetching})
