"""What is decided where the specification is silent: how a worker starts, stops and reaches its server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

import queue_system.worker
from queue_system import AccessDeniedError, QueueConfig, QueueManager, QueueWorker
from tests.contract.support import counted
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import eventually
from tests.kit.workers import running


async def test_stop_lets_a_running_operation_end_and_claims_no_more(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    gate = asyncio.Event()

    async def waits(entity: Any) -> None:
        inbox.put(entity)
        await gate.wait()

    queue.enqueue({"n": 1}, waits)
    async with running(QueueWorker(config)) as worker:
        await inbox.next()
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0)
        queue.enqueue({"n": 2}, waits)
        gate.set()
        await stopping
    assert counted(config, "processed") == 1
    assert queue.get_queue_status()[config.get_queue_key("waits")] == 1


async def test_stop_releases_what_does_not_end_in_time_to_the_head_unspent(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, inbox: Inbox
) -> None:
    monkeypatch.setattr(queue_system.worker, "_LONGEST_GRACE_S", 0.05)

    async def hangs(entity: Any) -> None:
        inbox.put(entity)
        await asyncio.Event().wait()

    queue.enqueue_batch([{"n": n} for n in range(4)], hangs)
    async with running(QueueWorker(config, max_workers=2)) as worker:
        await inbox.take(2)
        await worker.stop()
    items = documents(raw, config.get_queue_key("hangs"))[::-1]
    numbers = [item["entity"]["n"] for item in items]
    assert ({*numbers[:2]}, numbers[2:]) == ({0, 1}, [2, 3])
    assert all("attempts" not in item and "crashes" not in item for item in items)


async def test_start_and_stop_are_idempotent_and_a_worker_starts_again(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, inbox: Inbox
) -> None:
    worker = QueueWorker(config)
    config.register_callback(inbox.put, name="note")
    await worker.stop()
    for n in range(2):
        await worker.start()
        await worker.start()
        assert raw.hlen(config.keys.workers) == 1
        queue.enqueue({"n": n}, "note")
        assert await inbox.next() == {"n": n}
        await asyncio.gather(worker.stop(), worker.stop())
        await worker.stop()
        assert not worker.running
        assert raw.hlen(config.keys.workers) == 0


async def test_start_on_an_unreachable_server_keeps_trying_and_logs(start_server: StartServer, log: LineLogger) -> None:
    """Several times, since which of the worker's threads reaches the server first is left to chance."""
    server = start_server()
    for n in range(6):
        config = QueueConfig(redis_url=server.url, logger=log)
        server.stop()
        inbox = Inbox()
        config.register_callback(inbox.put, name="note")
        async with running(QueueWorker(config)) as worker:
            assert worker.running
            assert any(line.level == "error" for line in log.lines)
            server.start()
            QueueManager(config=config).enqueue({"n": n}, "note")
            async with asyncio.timeout(5):
                assert await inbox.next() == {"n": n}


async def test_start_with_wrong_credentials_raises(start_server: StartServer) -> None:
    server = start_server(requirepass="right")
    worker = QueueWorker(QueueConfig(redis_url=server.url.replace("right", "wrong")))
    with pytest.raises(AccessDeniedError):
        await worker.start()
    assert not worker.running
    with pytest.raises(AccessDeniedError):
        QueueManager(worker.config).enqueue({}, "app.handle")


@pytest.mark.parametrize("settings", [{}, {"decode_responses": True}, {"decode_responses": True, "protocol": 3}])
async def test_any_redis_client_serves(start_server: StartServer, settings: dict[str, Any]) -> None:
    """Also one with a password; the worker derives its connections from the client's settings."""
    server = start_server(requirepass="right")
    with server.client(**settings) as client:
        config = QueueConfig(redis_client=client)
        assert config._ensure_redis_sync() is client
        inbox = Inbox()
        config.register_callback(inbox.put, name="note")
        queue = QueueManager(config=config)
        queue.enqueue({"n": 1}, "note")
        async with running(QueueWorker(config)):
            assert await inbox.next() == {"n": 1}
        assert queue.get_queue_status()["metrics"]["processed"] == 1
        client.set("own", "text")
        assert client.get("own") == ("text" if settings else b"text")


def test_the_client_is_none_until_used_and_closing_it_is_safe(config: QueueConfig, queue: QueueManager) -> None:
    before = config.redis_client
    for _ in range(3):
        queue.enqueue({}, "app.handle")
        client: Any = config.redis_client
        client.close()
    assert before is None
    assert config._ensure_redis_sync().ping()
    assert queue.get_queue_status()["total_items"] == 3


@pytest.mark.parametrize("given", ["QUEUE_SYSTEM_REDIS_URL", "REDIS_URL"])
def test_without_a_url_the_environment_names_the_server(
    server: OwnServer, prefix: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.delenv("QUEUE_SYSTEM_REDIS_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv(given, server.url)
    QueueManager(config=QueueConfig(queue_prefix=prefix)).enqueue({}, "app.handle")
    assert raw.llen(f"{prefix}normal:handle") == 1


def test_configuration_and_manager_are_thread_safe(config: QueueConfig, queue: QueueManager, raw: redis.Redis) -> None:
    together = threading.Barrier(8)

    def produce(thread: int) -> list[str]:
        together.wait(10)
        answers = [queue.enqueue({"thread": thread, "n": n}, "app.handle") for n in range(25)]
        answers += queue.enqueue_batch([{"thread": thread, "n": n} for n in range(25, 50)], "app.handle")
        return [answer["operation_id"] for answer in answers]

    with ThreadPoolExecutor(8) as pool:
        ids = [operation_id for part in pool.map(produce, range(8)) for operation_id in part]
    items = documents(raw, config.get_queue_key("handle"))
    assert sorted(item["operation_id"] for item in items) == sorted(ids)
    assert {(item["entity"]["thread"], item["entity"]["n"]) for item in items} == {
        (thread, n) for thread in range(8) for n in range(50)
    }
    assert config.get_metrics()["enqueued"] == 400


async def test_stop_ends_a_worker_whose_server_is_gone(start_server: StartServer) -> None:
    server = start_server()
    worker = QueueWorker(QueueConfig(redis_url=server.url, connection_timeout=0.2), work_timeout=0.2)
    await worker.start()
    server.kill()
    async with asyncio.timeout(15):
        await worker.stop()
    assert not worker.running


async def test_a_cancelled_stop_still_stops(config: QueueConfig) -> None:
    worker = QueueWorker(config)
    await worker.start()
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stopping
    await eventually(lambda: not worker.running)
    await worker.stop()
