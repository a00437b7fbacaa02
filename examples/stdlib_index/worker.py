"""A worker process: `python -m examples.stdlib_index.worker`. More of them may join a run. Never enqueues."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import warnings

from queue_system import QueueConfig, QueueWorker, run

QUEUE = "index_module"
SLOTS = 4
WORK_TIMEOUT_S = 20.0

_LOOK_FOR_PARENT_S = 1.0


async def serve() -> None:
    """Work until a signal or the end of the parent process; then hand back what has not begun."""
    parent = os.getppid()
    stopping = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    worker = QueueWorker(QueueConfig(), max_workers=SLOTS, work_timeout=WORK_TIMEOUT_S, queues=[QUEUE])
    await worker.start()
    try:
        while not stopping.is_set() and os.getppid() == parent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_FOR_PARENT_S)
    finally:
        await worker.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    warnings.simplefilter("ignore")  # the library's old files are full of what the compiler warns of
    run(serve())
