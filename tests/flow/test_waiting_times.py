"""What a record tells of an operation that waits, and what becomes of one that has waited for too long."""

from __future__ import annotations

import json
import time

import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.flow.hostile import hang
from tests.kit.contents import documents, record_of
from tests.kit.foreign import push
from tests.kit.inbox import Inbox
from tests.kit.operations import fail
from tests.kit.waiting import eventually
from tests.kit.workers import running


async def test_an_operation_whose_total_time_passed_while_it_waited_does_not_start(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, "take", "shop")
    item = {
        "operation_id": "late", "processor": "take", "processor_module": "shop", "entity": 1, "attempts": 2,
        "max_attempts": 9, "retry_timeout": 5, "first_attempt_time": time.time() - 60,
    }  # fmt: skip
    push(client, config, json.dumps(item, separators=(",", ":")))
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics()["failed"] == 1, "it has failed", 10)
    assert inbox.empty
    record = record_of(queue, "late")
    assert (record.status, record.error_type, record.attempts) == ("failed", "TimeoutError", 2)
    assert record.error == "timed out before it could start: nothing is left of the total timeout of 5 s"
    (letter,) = documents(client, config.failures_queue)
    assert letter["attempts"] == 2
    assert config.get_metrics()["timeouts"] == 1


async def test_a_delayed_operation_tells_when_it_is_due_and_when_it_was_enqueued(
    queue: QueueManager, client: redis.Redis
) -> None:
    before = time.time() - 1
    single = queue.enqueue({}, fail, delay=100, deduplication_key="key")["operation_id"]
    (batch,) = queue.enqueue_batch([{}], fail, delay=100)
    for operation_id in (single, batch["operation_id"]):
        record = record_of(queue, operation_id)
        assert record.enqueued_at is not None
        assert record.due_at is not None
        assert before < record.enqueued_at < time.time() + 1
        assert 99.9 < record.due_at - record.enqueued_at < 100.1
        assert (record.status, record.attempts, record.updated_at) == ("delayed", 0, None)
    assert queue.enqueue({}, fail, deduplication_key="key")["status"] == "duplicate"


async def test_a_retrying_operation_tells_when_it_is_due_and_when_it_was_enqueued(
    queue: QueueManager, config: QueueConfig
) -> None:
    operation_id = queue.enqueue({}, fail, retry_config=QueueRetryConfig.fixed(100))["operation_id"]
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics()["retried"] == 1, "it is to run again", 10)
    record = record_of(queue, operation_id)
    assert record.enqueued_at is not None
    assert record.due_at is not None
    assert (record.status, record.attempts, record.error) == ("delayed", 1, "boom")
    assert 80 < record.due_at - record.enqueued_at < 130


async def test_a_foreign_item_without_an_id_that_is_handed_back_leaves_no_record(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    config.register_callback(hang, "wait", "shop")
    push(client, config, b'{"processor":"wait","processor_module":"shop"}', name="wait")

    def records() -> list[bytes]:
        return list(client.scan_iter(match=f"{config.queue_prefix}operation:*", count=1000))

    worker = QueueWorker(config)
    await worker.start()
    await eventually(lambda: len(records()) == 1, "it is noted as running", 10)
    await worker.stop(grace=0)
    assert records() == []
    assert client.llen(config.get_queue_key("wait")) == 1
