"""Settings that seem to contradict each other: what they promise holds all the same, or they are refused."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any

import pytest

from queue_system import InvalidInputError, QueueConfig, QueueManager, QueueWorker, ServerUnreachableError
from queue_system.testing.proxy import Proxy
from tests.kit.configs import MakeConfig
from tests.kit.inbox import Inbox
from tests.kit.servers import StartServer
from tests.kit.waiting import eventually
from tests.kit.workers import running

SHORT: dict[str, Any] = {"result_ttl": 0.001}


async def test_a_silent_connection_costs_no_lease_however_short_that_is_beside_the_connections_limit(
    start_server: StartServer, make_config: MakeConfig
) -> None:
    """A beat that waits for longer than its lease would let another worker run the operation beside this one."""
    server = start_server(tcp=True)
    starts, end = [], asyncio.Event()
    beats: list[str] = []

    async def work(entity: Any) -> None:
        starts.append(entity)
        await end.wait()

    with Proxy(server.url) as proxy:
        first = make_config(redis_url=proxy.url, lease_seconds=1.0, connection_timeout=4.0)
        second = make_config(redis_url=server.url, lease_seconds=1.0)
        for config in (first, second):
            config.register_callback(work, "work", "shop")
        async with running(QueueWorker(first, max_workers=1)):
            QueueManager(second).enqueue({"n": 1}, "shop.work", operation_id="op")
            await eventually(lambda: len(starts) == 1, "it runs", 10)
            async with running(QueueWorker(second, max_workers=1)):
                proxy._do(lambda: [link.half_open(server_learns=True) for link in proxy._links.values()])
                with server.client() as client:

                    def count_beats() -> int:
                        beats.extend(set(client.hvals(second.keys.workers)) - set(beats))
                        return len(beats)

                    await eventually(lambda: count_beats() > 20, "both have beaten for two leases and more", 30)
                assert len(starts) == 1
                end.set()
                await QueueManager(second).await_for("op", timeout=60)
    assert len(starts) == 1
    second.transport.close()


async def test_a_running_operation_keeps_its_key_however_short_the_keys_lifetime_is(
    make_config: MakeConfig, inbox: Inbox
) -> None:
    """Its record is written again before the lifetime is over."""
    config, end = make_config(dedup_ttl=2.0), asyncio.Event()
    queue = QueueManager(config)

    async def work(entity: Any) -> None:
        inbox.put(entity)
        await end.wait()

    queue.enqueue({"n": 1}, work, operation_id="first", deduplication_key="key")
    noted: set[float] = set()

    def spans_s() -> float:
        record = queue.get_operation("first")
        if record is not None and record.status == "running" and record.updated_at is not None:
            noted.add(record.updated_at)
        return max(noted, default=0.0) - min(noted, default=0.0)

    async with running(QueueWorker(config)):
        await eventually(lambda: spans_s() > config.dedup_ttl, "it has run for longer than its key lives", 20)
        again = queue.enqueue({"n": 2}, work, deduplication_key="key")
        end.set()
    assert (again["status"], again["operation_id"]) == ("duplicate", "first")


@pytest.mark.parametrize("own", [True, False])
async def test_an_enqueue_is_not_sent_again_when_its_record_may_be_gone(
    start_server: StartServer, make_config: MakeConfig, *, own: bool, is_async: bool
) -> None:
    """The record is what tells a resend from a new operation; without it, it would run twice."""
    server = start_server(tcp=True)
    with Proxy(server.url) as proxy:
        config = make_config(redis_url=proxy.url, **({} if own else {"result_ttl": 0.001}))
        queue = QueueManager(config)
        enqueue: Any = queue.aenqueue if is_async else queue.enqueue
        call = partial(enqueue, {}, "shop.work", **SHORT if own else {})
        queue.enqueue({}, "shop.work")
        proxy.lose("reply", "enqueue", times=1)
        with pytest.raises(ServerUnreachableError):
            await (call() if is_async else asyncio.to_thread(call))
        assert queue.get_queue_status()["total_items"] == 2
        proxy.lose("reply", "enqueue", times=1)
        await queue.aenqueue({}, "shop.work", result_ttl=60)
        assert queue.get_queue_status()["total_items"] == 3
        await queue.aclose()


@pytest.mark.parametrize("grace", [math.nan, math.inf, -1, True, "5", 10**400])
async def test_an_unusable_grace_is_named_and_stops_nothing(config: QueueConfig, grace: Any) -> None:
    async with running(QueueWorker(config)) as worker:
        with pytest.raises(InvalidInputError, match="grace"):
            await worker.stop(grace=grace)
        assert worker.running
