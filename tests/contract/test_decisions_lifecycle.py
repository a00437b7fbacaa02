"""What is decided where the specification is silent: how a worker starts, stops and reaches its server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import eventually
from tests.kit.workers import running


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


def test_one_connection_serves_many_calls(start_server: StartServer) -> None:
    server = start_server()
    queue = QueueManager(config=QueueConfig(redis_url=server.url))
    with server.client() as bare:
        queue.enqueue({}, "app.handle")
        before: Any = bare.info("stats")
        for _ in range(50):
            queue.enqueue({}, "app.handle")
            queue.get_queue_status()
        after: Any = bare.info("stats")
    assert after["total_connections_received"] == before["total_connections_received"]
