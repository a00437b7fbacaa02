"""What a worker cannot read or trust ends for those who wait for it, too: its id is there to read."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.contents import read_record, record_of
from tests.kit.foreign import die, hold, push, reclaimer
from tests.kit.inbox import Inbox
from tests.kit.operations import process
from tests.kit.workers import first_letter, running

KEYS = {"one": "x" * 16}
OTHER_KEYS = {"two": "y" * 16}
LARGE = {"text": "x" * 5000}


@pytest.mark.parametrize(
    "producer, worker, error",
    [
        ({}, {"max_item_bytes": 1000}, "more than max_item_bytes"),
        ({"signing_keys": KEYS}, {"signing_keys": KEYS, "max_item_bytes": 1000}, "more than max_item_bytes"),
        ({"signing_keys": OTHER_KEYS}, {"signing_keys": KEYS}, "key"),
        ({}, {"signing_keys": KEYS}, "signed"),
    ],
)
@pytest.mark.parametrize("own_id", [None, "mine"])
async def test_who_waits_for_an_operation_that_is_refused_unread_is_told_and_its_key_is_free(
    make_config: MakeConfig, producer: dict[str, Any], worker: dict[str, Any], error: str, own_id: str | None
) -> None:
    queue = QueueManager(make_config(**producer))
    operation_id = queue.enqueue(LARGE, process, operation_id=own_id, deduplication_key="key")["operation_id"]
    config = make_config(**worker)
    async with running(QueueWorker(config)):
        record = await queue.await_for(operation_id, timeout=10)
    assert (record.status, record.error_type, record.attempts) == ("system_error", "UndecodableItemError", 0)
    assert record.error is not None
    assert error in record.error
    assert record.enqueued_at is not None
    assert record.finished_at is not None
    assert record.finished_at >= record.enqueued_at
    assert [line["operation_id"] for line in config.logger.of("operation rejected")] == [operation_id]
    assert queue.enqueue(LARGE, process, deduplication_key="key")["status"] == "queued"


@pytest.mark.parametrize("keys", [None, KEYS])
async def test_the_failure_callback_of_an_item_that_is_too_large_runs_without_its_entity(
    make_config: MakeConfig, inbox: Inbox, keys: Any
) -> None:
    producer, worker = make_config(signing_keys=keys), make_config(signing_keys=keys, max_item_bytes=1000)
    worker.register_callback(inbox.put, "told", "shop")
    QueueManager(producer).enqueue(LARGE, process, operation_id="big", on_failure="shop.told")
    async with running(QueueWorker(worker)):
        data = await inbox.next()
    assert (data["operation_id"], data["entity"], data["error_type"]) == ("big", None, "UndecodableItemError")
    assert "more than max_item_bytes" in data["error"]


async def test_nothing_of_an_item_that_cannot_be_verified_is_called(make_config: MakeConfig, inbox: Inbox) -> None:
    producer, worker = make_config(), make_config(signing_keys=KEYS)
    worker.register_callback(inbox.put, "told", "shop")
    queue = QueueManager(producer)
    queue.enqueue(LARGE, process, operation_id="forged", on_failure="shop.told")
    async with running(QueueWorker(worker)):
        await queue.await_for("forged", timeout=10)
    assert inbox.empty


@pytest.mark.parametrize("where", ["another queue", "no nonce"])
async def test_a_forged_item_with_the_id_of_another_leaves_its_record_alone(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, where: str
) -> None:
    queue.enqueue({"n": 1}, process, operation_id="mine", delay=100)
    name = "other" if where == "another queue" else "process"
    push(client, config, b'{"operation_id":"mine","entity":', name=name)
    await first_letter(config, client, "system_errors")
    assert client.llen(config.system_errors_queue) == 1
    assert read_record(client, config, "mine").status == "delayed"


async def test_a_reclaimer_tells_too_what_it_cannot_read(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    queue.enqueue({}, process, operation_id="mine", deduplication_key="key")
    raw: Any = client.get(config.keys.operation("mine"))
    nonce = raw.split(b"\t")[1].decode()
    client.lset(config.get_queue_key("process"), 0, f'{{"operation_id":"mine","nonce":"{nonce}",')
    hold(config, "gone", claims=1)
    die(config, "gone")
    reclaimer(config).perform()
    record = record_of(queue, "mine")
    assert (record.status, record.error_type) == ("system_error", "UndecodableItemError")
    assert queue.enqueue({}, process, deduplication_key="key")["status"] == "queued"
