"""The single-item entry points: the same executor and settlement, outside the turns of the engine."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, read_record
from tests.kit.inbox import Inbox
from tests.kit.operations import fail
from tests.kit.waiting import eventually
from tests.kit.workers import running


async def test_without_an_item_there_is_nothing_to_do(config: QueueConfig, client: redis.Redis) -> None:
    assert await QueueWorker(config)._process_queue_item(0) is False
    assert not client.exists(config.keys.workers)


async def test_one_call_processes_one_item_and_its_callback(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    ids = [a["operation_id"] for a in queue.enqueue_batch([{"n": 1}, {"n": 2}], inbox.put, on_success=inbox.put)]
    worker = QueueWorker(config)
    assert await worker._process_queue_item(0) is True
    assert await inbox.next() == {"n": 1}
    assert (await inbox.next())["operation_id"] == ids[0]
    await asyncio.sleep(0)
    assert inbox.empty
    assert read_record(client, config, ids[0]).status == "succeeded"
    assert read_record(client, config, ids[1]).status == "queued"
    assert not client.exists(config.keys.workers)


async def test_a_failing_item_is_judged_as_in_the_stream(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    answer = queue.enqueue({}, fail, retry_config=QueueRetryConfig.fixed(0.0, max_attempts=2))
    worker = QueueWorker(config)
    assert await worker._process_queue_item(0) is True
    assert read_record(client, config, answer["operation_id"]).status == "delayed"
    assert await worker._process_queue_item(0) is True
    assert [letter["attempts"] for letter in documents(client, config.failures_queue)] == [2]


@pytest.mark.parametrize("name, item", [("normal:jobs", b"garbage"), ("elsewhere", b'{"processor":"p"}')])
async def test_an_item_that_cannot_be_handled_is_a_system_error(
    config: QueueConfig, client: redis.Redis, name: str, item: bytes
) -> None:
    assert await QueueWorker(config)._handle_queue_item(0, f"{config.queue_prefix}{name}".encode(), item) is True
    (letter,) = documents(client, config.system_errors_queue)
    assert letter["error_type"] == "UndecodableItemError"


async def test_a_cancelled_call_raises_and_hands_its_item_back(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    async def hang(entity: Any) -> None:
        inbox.put("started")
        await asyncio.Event().wait()

    queue.enqueue({}, hang, queue_name="jobs")
    call = asyncio.create_task(QueueWorker(config)._process_queue_item(0))
    await inbox.next()
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    assert client.llen(config.get_queue_key("jobs")) == 1
    assert not client.exists(config.keys.workers)
    assert call.cancelled()


async def test_a_single_item_beside_a_running_worker_ends_nothing_of_it(make_config: MakeConfig, inbox: Inbox) -> None:
    """The worker's own heartbeat goes on, so that it keeps its lease and serves."""
    config = make_config(lease_seconds=0.6)
    queue = QueueManager(config)
    worker = QueueWorker(config)
    async with running(worker):
        await worker._process_queue_item(0)
        first = config.transport.run(config.commands.incarnations())
        await eventually(lambda: config.transport.run(config.commands.incarnations()) != first, "the worker beats", 3.0)
        queue.enqueue({"n": 1}, inbox.put)
        assert await inbox.next() == {"n": 1}
    assert config.get_metrics().get("lease_lost", 0) == 0
