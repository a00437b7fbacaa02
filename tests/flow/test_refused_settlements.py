"""Settlements that the server refuses: none of them holds the others, and what they are about is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.kit.contents import documents, read_record
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer
from tests.kit.waiting import eventually
from tests.kit.workers import running

NEIGHBOURS = 30
LARGE = 700_000


@pytest.fixture
def strict(server: OwnServer) -> Iterator[redis.Redis]:
    """A server that takes no argument of more than 1 MiB, from now until the end of the test."""
    with server.client() as client:
        usual = client.config_get("proto-max-bulk-len")["proto-max-bulk-len"]
        client.config_set("proto-max-bulk-len", 1024 * 1024)
        yield client
        client.config_set("proto-max-bulk-len", usual)


async def serve_neighbours(config: QueueConfig, client: redis.Redis, dead_letters: int) -> list[dict[str, Any]]:
    """Run a worker until the neighbours have succeeded and so many dead letters are there; return those."""
    queue = QueueManager(config)
    async with running(QueueWorker(config, max_workers=50)):
        await eventually(
            lambda: queue.get_queue_status()["metrics"].get("processed") == NEIGHBOURS, "the others succeed", 20.0
        )
        await eventually(lambda: client.llen(config.system_errors_queue) == dead_letters, "they are there", 20.0)
    assert not client.exists(config.keys.workers), "nothing is left in flight"
    return documents(client, config.system_errors_queue)


async def work(entity: dict[str, Any]) -> Any:
    """Give back what the entity carries."""
    return entity.get("text")


async def test_foreign_bytes_whose_dead_letter_is_too_large_hold_no_other(
    make_config: Any, strict: redis.Redis, log: LineLogger
) -> None:
    config = make_config(logger=log)
    raw = [b"no item" + b"%d" % n * 900_000 for n in range(2)]
    key = config.get_queue_key("work")
    strict.lpush(key, *raw)
    QueueManager(config).enqueue_batch([{"n": n} for n in range(NEIGHBOURS)], work)
    found = await serve_neighbours(config, strict, 2)
    assert sorted(strict.get(dead_letter["kept_in"]) or b"" for dead_letter in found) == sorted(raw)
    assert {dead_letter["error_type"] for dead_letter in found} == {"ServerError"}
    assert all(dead_letter["kept_in"] in dead_letter["failure_reason"] for dead_letter in found)
    assert len(log.of("the server refuses a verdict: the item is set aside")) == 2


async def test_a_verdict_that_is_too_large_is_told_in_the_record_and_holds_no_other(
    make_config: Any, strict: redis.Redis
) -> None:
    """Its callback item carries the entity beside the result."""
    config = make_config()
    queue = QueueManager(config)
    queue.enqueue({"text": "x" * LARGE}, work, operation_id="large", on_success=work, deduplication_key="key")
    queue.enqueue_batch([{"n": n} for n in range(NEIGHBOURS)], work)
    (dead_letter,) = await serve_neighbours(config, strict, 1)
    kept: Any = strict.get(dead_letter["kept_in"])
    assert json.loads(kept)["entity"] == {"text": "x" * LARGE}
    assert (dead_letter["operation_id"], dead_letter["queue"]) == ("large", "normal:work")
    record = read_record(strict, config, "large")
    assert record.status == "rejected"
    assert dead_letter["kept_in"] in record.body["error"]
    assert not strict.hexists(f"{config.queue_prefix}dedup", "key")
