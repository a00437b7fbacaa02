"""What each row of the table of QueueManager promises, argument by argument."""

from __future__ import annotations

from collections.abc import Callable
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
)
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import StartServer
from tests.kit.workers import running


async def handle(entity: Any) -> None: ...


def stored(raw: redis.Redis, config: QueueConfig, name: str = "handle", priority: str = "normal") -> dict[str, Any]:
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


def test_enqueue_calls_the_custom_serializer_for_what_json_lacks(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis
) -> None:
    queue.enqueue({"z": 1 + 2j}, handle, custom_serializer=str)
    assert stored(raw, config)["entity"] == {"z": "(1+2j)"}


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
