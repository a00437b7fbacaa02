"""`max_dead_letters`: dead letters beyond it go, the oldest first, and are counted."""

from __future__ import annotations

import asyncio
from typing import Any

import redis

from queue_system import QueueManager, QueueRetryConfig, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents
from tests.kit.waiting import eventually
from tests.kit.workers import running


async def fail(entity: dict[str, Any]) -> None:
    raise ValueError(f"number {entity['n']}")


async def test_failures_beyond_the_cap_go_and_are_counted(make_config: MakeConfig) -> None:
    failures, cap = 500, 100
    config = make_config(max_dead_letters=cap)
    queue = QueueManager(config)
    queue.enqueue_batch([{"n": n} for n in range(failures)], fail, retry_config=QueueRetryConfig(max_attempts=1))
    async with running(QueueWorker(config, max_workers=1)):
        await eventually(lambda: config.get_metrics()["failed"] == failures, "all have failed", 30)
    counters = queue.get_queue_status()["metrics"]
    assert (counters["failed"], counters["dead_letters_dropped"]) == (failures, failures - cap)
    kept = await asyncio.to_thread(documents, config._ensure_redis_sync(), config.failures_queue)
    assert [letter["entity"]["n"] for letter in kept] == list(range(failures - 1, failures - cap - 1, -1))


async def test_unprocessable_items_beyond_the_cap_go_too(make_config: MakeConfig, client: redis.Redis) -> None:
    """These are bytes that are no item; one whose processor another worker may know pushes nothing out."""
    config = make_config(max_dead_letters=3)
    queue = QueueManager(config)
    client.sadd(config.get_registry_key(), config.get_queue_key("raw"))
    client.lpush(config.get_queue_key("raw"), *[b"no item"] * 10)
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics()["system_errors"] == 10, "all are rejected", 10)
    status = queue.get_queue_status()
    assert status[config.system_errors_queue] == 3
    assert status["metrics"]["dead_letters_dropped"] == config.get_metrics()["dead_letters_dropped"] == 7
    assert config.logger.of("dead letters dropped: there are as many as max_dead_letters; retry or drop some")
