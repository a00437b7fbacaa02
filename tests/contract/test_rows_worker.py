"""What each row of the table of QueueWorker promises."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import redis

from queue_system import (
    CircuitOpenError,
    QueueConfig,
    QueueManager,
    QueueRetryConfig,
    QueueWorker,
    ServerUnreachableError,
)
from tests.contract.support import counted
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.servers import StartServer, frozen
from tests.kit.waiting import DEADLINE_S

ONCE = QueueRetryConfig(max_attempts=1)


async def never(entity: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("taken", [False, True], ids=["_process_queue_item", "_handle_queue_item"])
async def test_a_single_item_that_hangs_is_ended(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, taken: bool
) -> None:
    queue.enqueue({}, never, retry_config=ONCE)
    worker, key = QueueWorker(config, work_timeout=0.05), config.get_queue_key("never")
    async with asyncio.timeout(DEADLINE_S):
        if taken:
            item: Any = raw.rpop(key)
            assert await worker._handle_queue_item(0, key.encode(), item.encode()) is True
        else:
            assert await worker._process_queue_item(0) is True
    assert counted(config, "failed") == 1


async def test_process_queue_item_does_not_wait_for_a_frozen_server(start_server: StartServer) -> None:
    server = start_server()
    worker = QueueWorker(QueueConfig(redis_url=server.url, connection_timeout=0.1))
    assert await worker._process_queue_item(0) is False
    with frozen(server), pytest.raises(ServerUnreachableError):
        async with asyncio.timeout(DEADLINE_S):
            await worker._process_queue_item(0)


async def test_the_breaker_of_process_queue_item_opens_at_the_fifth_failure(start_server: StartServer) -> None:
    server = start_server()
    server.stop()
    worker = QueueWorker(QueueConfig(redis_url=server.url))
    for _ in range(5):
        with pytest.raises(ServerUnreachableError):
            await worker._process_queue_item(0)
    with pytest.raises(CircuitOpenError) as caught:
        await worker._process_queue_item(0)
    assert 0 < caught.value.retry_after <= 30


@pytest.mark.parametrize("broken", [False, True])
async def test_handle_queue_item_settles_an_item_that_the_caller_took(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, broken: bool, inbox: Inbox
) -> None:

    def handle(entity: Any) -> None:
        inbox.put(entity)
        if broken:
            raise RuntimeError("no luck")

    key = config.get_queue_key("handle", "high")
    queue.enqueue({"n": 1}, handle, priority="high", retry_config=ONCE)
    item: Any = raw.rpop(key)
    assert await QueueWorker(config)._handle_queue_item(0, key.encode(), item.encode()) is True
    assert await inbox.next() == {"n": 1}
    assert (counted(config, "failed"), counted(config, "processed")) == ((1, 0) if broken else (0, 1))
    assert raw.hlen(config.keys.workers) == 0


@pytest.mark.parametrize(
    "item", [b"no json", b'{"processor":"nowhere.to.be_found"}', b'{"entity":1}', b"\xff\x00", b""]
)
async def test_handle_queue_item_keeps_what_it_cannot_process(
    config: QueueConfig, raw: redis.Redis, item: bytes
) -> None:
    await QueueWorker(config)._handle_queue_item(0, config.get_queue_key("handle").encode(), item)
    (dead_letter,) = documents(raw, config.system_errors_queue)
    assert dead_letter["queue"] == "normal:handle"
    assert dead_letter["failure_reason"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_execute_callback_tries_again_when_the_callback_raises(config: QueueConfig, kind: str) -> None:
    calls: list[Any] = []

    def notify(data: Any) -> None:
        calls.append(data)
        assert (threading.current_thread() is threading.main_thread()) is (kind == "async")
        if len(calls) < 3:
            raise OSError("not yet")

    async def notify_async(data: Any) -> None:
        notify(data)

    config.register_callback(notify if kind == "sync" else notify_async, name="notify", module="app.mail")
    await QueueWorker(config)._execute_callback("notify", "app.mail", {"result": 1})
    assert calls == [{"result": 1}] * 3


async def test_execute_callback_raises_the_last_error_itself(config: QueueConfig) -> None:
    raised: list[OSError] = []

    async def breaks(data: Any) -> None:
        raised.append(OSError(len(raised)))
        raise raised[-1]

    config.register_callback(breaks, name="breaks")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - identity is checked below
        await QueueWorker(config)._execute_callback("breaks", None, {})
    assert caught.value is raised[-1]
    assert len(raised) == 4
