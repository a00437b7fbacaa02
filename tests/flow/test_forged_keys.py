"""What a stranger writes into a running worker's own keys: it goes on, and no operation is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.inbox import Inbox
from tests.kit.waiting import eventually
from tests.kit.workers import running

OPERATIONS = 20


@pytest.fixture
def config(make_config: MakeConfig) -> QueueConfig:
    return make_config(lease_seconds=1.0)


def forge(client: redis.Redis, config: QueueConfig, what: str) -> None:
    """Write what a test names into the keys of every registered incarnation."""
    entries: dict[Any, Any] = client.hgetall(config.keys.workers)
    for name in entries:
        key = config.keys.inflight(name.decode())
        match what:
            case "#claim" | "#settle":
                value = b"c999999999 1 1" if what == "#claim" else b"s999999999 d"
                client.hset(key, what, value)
            case "#later":
                client.hset(key, what, "x")
            case "foreign type":
                client.delete(key)
                client.set(key, "foreign")
            case "entry":
                client.hset(config.keys.workers, name, "x" * 1000)
            case "token":
                client.set(f"{config.queue_prefix}token", "9e300")
            case "workers":
                client.delete(config.keys.workers)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["#claim", "#settle", "#later", "foreign type", "entry", "token", "workers"])
async def test_a_worker_goes_on_whatever_is_written_into_its_keys(
    config: QueueConfig, client: redis.Redis, inbox: Inbox, what: str
) -> None:
    queue, going = QueueManager(config), asyncio.Event()

    async def work(entity: dict[str, Any]) -> None:
        if entity["n"] == 0:
            await going.wait()
        inbox.put(entity["n"])

    async with running(QueueWorker(config, max_workers=3)):
        queue.enqueue_batch([{"n": n} for n in range(OPERATIONS)], work)
        first = {await inbox.next()}
        forge(client, config, what)
        queue.enqueue_batch([{"n": n} for n in range(OPERATIONS, 2 * OPERATIONS)], work)
        going.set()
        while first != set(range(2 * OPERATIONS)) and not (what == "foreign type" and len(first) > OPERATIONS):
            first.add(await inbox.next())
        await eventually(lambda: queue.get_queue_status()["total_items"] == 0, "all is settled", 10.0)
        await eventually(lambda: client.hlen(config.keys.workers) == 1, "no other incarnation is left", 20.0)
