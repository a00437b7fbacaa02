"""A worker process that meets all kinds of operations, logs to stderr, and prints its metrics at the end."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.inspection.fleet import FleetReader
from queue_system.logs import configure
from queue_system.monitoring import prometheus
from queue_system.monitoring.collectors import FleetCollector, HealthCollector
from queue_system.monitoring.health import health_of
from queue_system.monitoring.labels import place_of
from queue_system.monitoring.latest import Latest
from tests.kit.hostile_texts import CORPUS
from tests.kit.waiting import eventually

ENTITY = "never-in-a-log-line"
ONCE = QueueRetryConfig(max_attempts=1)


async def succeed(entity: Any) -> None:
    """Do nothing."""


async def explode(entity: dict[str, Any]) -> None:
    raise ValueError(entity["text"])


async def hang(entity: Any) -> None:
    await asyncio.sleep(60)


async def main(url: str, prefix: str) -> None:
    config = QueueConfig(redis_url=url, queue_prefix=prefix)
    queue = QueueManager(config)
    prometheus.enable(config)
    entity = {"secret": ENTITY}
    queue.enqueue_batch([entity] * 20, succeed, queue_name="mails")
    for text in CORPUS.values():
        clean = text.encode(errors="replace").decode()
        queue.enqueue({**entity, "text": clean}, explode, retry_config=ONCE)
    twice = QueueRetryConfig(max_attempts=2, delays=[0.05])
    queue.enqueue({**entity, "text": "twice"}, explode, retry_config=twice)
    queue.enqueue(entity, hang, timeout=0.05, retry_config=ONCE)
    queue.enqueue(entity, "nowhere.to_be_found")
    worker = QueueWorker(config)
    await worker.start()

    def settled() -> bool:
        counts = config.get_metrics()
        return bool(counts["processed"] == 20 and counts["failed"] == len(CORPUS) + 2 and counts["system_errors"] == 1)

    await eventually(settled, "all is settled", 30.0)
    config.update_metric("success_rate", 97.5, force_log=True)
    with TracerProvider().get_tracer("busy").start_as_current_span("traced"):
        logging.getLogger("shop.orders").info("order %d\nplaced", 7, extra={"order": 7})
    try:
        raise RuntimeError("forged\n{}")
    except RuntimeError:
        logging.getLogger("shop.orders").exception("it went wrong")
    place = place_of(config)
    fleet = FleetCollector(Latest(FleetReader(config)).get, place)
    shown = prometheus.exposition([fleet, HealthCollector(lambda: [health_of(worker)], place)])
    await worker.stop()
    print(shown.decode())  # noqa: T201 - how the test learns of it


if __name__ == "__main__":
    configure(sys.argv[3])
    asyncio.run(main(*sys.argv[1:3]))
