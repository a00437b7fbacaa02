"""A worker process that counts in the folder of its parent, until its operations are done. Prints its process id."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.monitoring import prometheus
from tests.kit.waiting import eventually


async def succeed(entity: Any) -> None:
    """Do nothing."""


async def main(url: str, prefix: str) -> None:
    config = QueueConfig(redis_url=url, queue_prefix=prefix)
    prometheus.enable(config)
    QueueManager(config).enqueue_batch([{}] * 10, succeed, queue_name="shared")
    worker = QueueWorker(config)
    await worker.start()
    await eventually(lambda: config.get_metrics()["processed"] == 10)
    await worker.stop()


if __name__ == "__main__":
    print(os.getpid())  # noqa: T201 - how the test learns of it
    asyncio.run(main(*sys.argv[1:]))
