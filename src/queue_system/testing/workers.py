"""Ends a worker as `kill -9` would."""

from __future__ import annotations

from queue_system.worker import QueueWorker


async def kill_worker(worker: QueueWorker) -> None:
    """End a worker in this process at once, in the middle of its operations; nothing is settled or handed back.

    Its async processors are cancelled; a sync one runs on in its thread, and its result is dropped. What the worker
    held stays booked on it in Redis. Its lease counts as run out, so the next worker takes its operations over when it
    starts, and runs them again. Does nothing if the worker does not run.
    """
    if (worker_id := await worker.kill()) is not None:
        await _expire_lease(worker, worker_id)


async def _expire_lease(worker: QueueWorker, incarnation: str) -> None:
    """Declare an incarnation dead, as another worker does at the end of its lease; the next worker takes over."""
    commands = worker.config.shard.commands
    run = worker.config.shard.arun
    while (entry := (await run(commands.incarnations())).get(incarnation)) is not None:
        if await run(commands.declare_dead(incarnation, entry)):  # else a beat came between the two
            return
