"""What each row of the table of QueueManager promises, argument by argument."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import redis

from queue_system import (
    InvalidInputError,
    QueueConfig,
    QueueManager,
    QueueRetryConfig,
    QueueSystemError,
    QueueWorker,
    ServerUnreachableError,
    UnserializableError,
)
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import StartServer
from tests.kit.workers import running


async def handle(entity: Any) -> None: ...


def stored(raw: redis.Redis, config: QueueConfig, name: str = "handle", priority: str = "normal") -> dict[str, Any]:
    """The only item of a queue."""
    (item,) = documents(raw, config.get_queue_key(name, priority))
    return item


@pytest.mark.parametrize(
    "arguments, members",
    [
        ({}, {"entity": {"n": 1}, "processor": "handle"}),
        ({"operation_id": "order-17"}, {"operation_id": "order-17"}),
        (
            {"retry_config": QueueRetryConfig.custom([1, 2], timeout=9)},
            {"max_attempts": 2, "delays": [1, 2], "retry_timeout": 9},
        ),
        ({"on_success": handle}, {"on_success": "handle"}),
        ({"on_failure": "app.mail.alarm"}, {"on_failure": "alarm", "on_failure_module": "app.mail"}),
        ({"timeout": 2.5}, {"timeout": 2.5}),
        ({"deduplication_key": "order-17"}, {"deduplication_key": "order-17"}),
    ],
)
def test_enqueue_stores_its_arguments_in_one_document(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, arguments: dict[str, Any], members: dict[str, Any]
) -> None:
    answer = queue.enqueue(entity={"n": 1}, processor=handle, **arguments)
    item = stored(raw, config)
    assert next(iter(item)) == "operation_id"
    assert item["operation_id"] == answer["operation_id"]
    assert item | members == item


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
@pytest.mark.parametrize("queue_name, stored_name", [(None, "handle"), ("mail", "mail")])
def test_enqueue_puts_into_the_queue_of_name_and_priority(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, priority: str, queue_name: str | None, stored_name: str
) -> None:
    queue.enqueue({"n": 1}, handle, queue_name=queue_name, priority=priority)
    assert raw.llen(f"{config.queue_prefix}{priority}:{stored_name}") == 1


def test_enqueue_calls_the_custom_serializer_for_what_json_lacks(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis
) -> None:
    queue.enqueue({"z": 1 + 2j}, handle, custom_serializer=str)
    assert stored(raw, config)["entity"] == {"z": "(1+2j)"}


def test_enqueue_batch_returns_an_answer_for_each_entity_and_takes_the_arguments_of_enqueue(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis
) -> None:
    answers = queue.enqueue_batch(
        [{"n": n} for n in range(3)], handle, queue_name="bulk", priority="low", timeout=3.0, on_success=handle
    )
    items = documents(raw, config.get_queue_key("bulk", "low"))[::-1]
    assert [item["entity"]["n"] for item in items] == [0, 1, 2]
    assert [item["operation_id"] for item in items] == [answer["operation_id"] for answer in answers]
    assert all(item["timeout"] == 3.0 and item["on_success"] == "handle" for item in items)
    assert config.get_metrics()["enqueued"] == 3


def test_get_queue_status_counts_every_registered_list_and_all_else_there_is(
    config: QueueConfig, queue: QueueManager
) -> None:
    queue.enqueue_batch([{}, {}], handle, priority="high")
    queue.enqueue({}, handle, queue_name="mail")
    queue.enqueue({}, handle, queue_name="later", delay=60)
    status, prefix = queue.get_queue_status(), config.queue_prefix
    assert status.pop("status_time") > 1e9
    assert status == {
        f"{prefix}high:handle": 2, f"{prefix}normal:mail": 1, f"{prefix}normal:later": 0, f"{prefix}failures": 0,
        f"{prefix}system_errors": 0, f"{prefix}delayed": 1, f"{prefix}running": 0, "total_items": 3,
        "metrics": {"enqueued": 4},
    }  # fmt: skip


def test_purge_queue_removes_all_items_of_one_queue_and_counts_them(config: QueueConfig, queue: QueueManager) -> None:
    queue.enqueue_batch([{}] * 1200, handle)
    queue.enqueue({}, handle, delay=60)
    queue.enqueue({}, handle, priority="high")
    queue.enqueue({}, handle, queue_name="mail")
    assert queue.purge_queue("handle") == 1201
    assert queue.purge_queue("handle") == 0
    status = queue.get_queue_status()
    assert (status["total_items"], status[f"{config.queue_prefix}delayed"]) == (2, 0)
    assert queue.purge_queue("handle", priority="high") == 1


def test_generate_operation_id_gives_unique_strings(queue: QueueManager) -> None:
    ids = {queue._generate_operation_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{32}", operation_id) for operation_id in ids)


def test_hash_entity_is_equal_for_equal_entities_only(queue: QueueManager) -> None:
    digest = queue._hash_entity({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert queue._hash_entity({"b": {"d": None, "c": [1, 2]}, "a": 1}) == digest
    assert queue._hash_entity({"a": 1, "b": {"c": [2, 1], "d": None}}) != digest
    assert isinstance(digest, str)


def test_serialize_entity_gives_json_and_asks_the_serializer_for_the_rest(queue: QueueManager) -> None:
    assert json.loads(queue._serialize_entity({"price": Decimal("9.90")})) == {"price": "9.90"}
    assert json.loads(queue._serialize_entity({"z": 2j}, default_serializer=str)) == {"z": "2j"}
    with pytest.raises(UnserializableError, match=re.escape("entity.z")):
        queue._serialize_entity({"z": 2j})


async def test_queue_operation_queues_what_enqueue_would(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, name="note")
    data = {"operation_id": "op-1", "entity": {"z": 2j}, "processor": "note"}
    answer = queue._queue_operation(data, "mail", "high", str)
    assert (answer["operation_id"], answer["status"]) == ("op-1", "queued")
    assert queue.get_queue_status()[config.get_queue_key("mail", "high")] == 1
    async with running(QueueWorker(config)):
        assert await inbox.next() == {"z": "2j"}


CALLS: list[Callable[[QueueManager], Any]] = [
    lambda queue: queue.enqueue({}, handle),
    lambda queue: queue.enqueue_batch([{}], handle),
    lambda queue: queue.get_queue_status(),
    lambda queue: queue.purge_queue("handle"),
    lambda queue: queue._queue_operation({"entity": {}, "processor": "handle"}, "handle"),
]
NAMES = ["enqueue", "enqueue_batch", "get_queue_status", "purge_queue", "_queue_operation"]


@pytest.mark.parametrize("call, name", list(zip(CALLS, NAMES, strict=True)), ids=NAMES)
def test_an_outage_is_logged_once_and_raised_typed_with_its_context(
    start_server: StartServer, log: LineLogger, call: Callable[[QueueManager], Any], name: str
) -> None:
    server = start_server()
    server.stop()
    queue = QueueManager(config=QueueConfig(redis_url=server.url, logger=log, max_connection_retries=0))
    with pytest.raises(ServerUnreachableError) as caught:
        call(queue)
    assert [line.level for line in log.lines] == ["error"]
    assert log.lines[0].fields["error_type"] == "ServerUnreachableError"
    assert any(name in note for note in caught.value.__notes__)


REFUSALS: list[Callable[[QueueManager], Any]] = [
    lambda queue: queue.enqueue({}, handle, priority="urgent"),
    lambda queue: queue.enqueue_batch([{}, {"z": 2j}], handle),
    lambda queue: queue.purge_queue("no spaces"),
    lambda queue: queue._queue_operation({"entity": {}, "processor": "handle"}, "no spaces"),
]


@pytest.mark.parametrize("call", REFUSALS, ids=["enqueue", "enqueue_batch", "purge_queue", "_queue_operation"])
def test_a_wrong_argument_is_logged_once_and_raised_typed(
    queue: QueueManager, log: LineLogger, call: Callable[[QueueManager], Any]
) -> None:
    with pytest.raises(QueueSystemError) as caught:
        call(queue)
    assert isinstance(caught.value, InvalidInputError)
    assert [line.level for line in log.lines] == ["error"]
