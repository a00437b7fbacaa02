"""Answers that are lost or come midway: a call tells what it knows, and counts what was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, ServerFullError, ServerUnreachableError
from queue_system.testing.proxy import Loss, Proxy
from tests.kit.configs import MakeConfig
from tests.kit.servers import StartServer

ENTITIES: list[dict[str, Any]] = [{"n": n} for n in range(3000)]


class Line:
    """A server behind a proxy, and a configuration that reaches it through that."""

    def __init__(self, proxy: Proxy, admin: redis.Redis, config: QueueConfig) -> None:
        self.proxy, self.admin, self.config = proxy, admin, config
        self.queue = QueueManager(config)

    def fill_when(self, full: Callable[[str, str, bool], bool]) -> None:
        """Let the server be full from the first message on for which `full` holds: direction, command, is it lost."""
        kept = self.proxy.kept

        def watched(what: Any, command: str, message: bytes) -> bytes | None:
            left = kept(what, command, message)
            if full(what, command, left is not None):
                self.admin.config_set("maxmemory", 1)
            return left

        self.proxy.kept = watched  # type: ignore[method-assign]

    def waiting(self) -> int:
        self.admin.config_set("maxmemory", 0)
        length: Any = self.admin.llen(self.config.get_queue_key("work"))
        return int(length)


@pytest.fixture
async def line(start_server: StartServer, make_config: MakeConfig) -> AsyncIterator[Line]:
    server = start_server(tcp=True)
    with Proxy(server.url) as proxy, server.client() as admin:
        line = Line(proxy, admin, make_config(redis_url=proxy.url))
        yield line
        await line.queue.aclose()


async def call(queue: QueueManager, name: str, *arguments: Any, is_async: bool, **options: Any) -> Any:
    """Call a method of the manager in a thread, or its async twin."""
    if is_async:
        return await getattr(queue, f"a{name}")(*arguments, **options)
    return await asyncio.to_thread(partial(getattr(queue, name), *arguments, **options))


async def test_a_refusal_after_a_lost_answer_says_that_the_outcome_is_unknown(line: Line, *, is_async: bool) -> None:
    line.proxy.lose("reply", "enqueue", times=1)
    line.fill_when(lambda what, _, lost: what == "reply" and lost)
    with pytest.raises(ServerFullError, match="the outcome is unknown") as caught:
        await call(line.queue, "enqueue", {}, "shop.work", is_async=is_async)
    assert caught.value.outcome_unknown
    assert line.waiting() == 1


async def test_a_refusal_at_once_says_that_nothing_was_done(line: Line, *, is_async: bool) -> None:
    line.admin.config_set("maxmemory", 1)
    with pytest.raises(ServerFullError) as caught:
        await call(line.queue, "enqueue", {}, "shop.work", is_async=is_async)
    assert not caught.value.outcome_unknown
    assert "unknown" not in str(caught.value)
    assert line.waiting() == 0


async def test_a_batch_that_is_refused_midway_tells_what_is_queued_and_counts_it(line: Line, *, is_async: bool) -> None:
    seen: list[str] = []

    def second(what: str, command: str, _: bool) -> bool:
        seen.extend([command] if what == "request" and command == "enqueue" else [])
        return len(seen) == 2

    line.queue.enqueue({}, "shop.work")  # so that the server knows the script
    line.fill_when(second)
    with pytest.raises(ServerFullError, match="1000 of 3000 operations are queued") as caught:
        await call(line.queue, "enqueue_batch", ENTITIES, "shop.work", is_async=is_async)
    waiting = line.waiting()
    assert len(caught.value.queued_ids) == waiting - 1 == 1000
    for operation_id in caught.value.queued_ids[::333]:
        assert line.queue.get_operation(operation_id) is not None
    assert line.config.get_metrics()["enqueued"] == waiting
    assert not caught.value.outcome_unknown


async def test_a_batch_without_an_answer_tells_what_is_surely_queued(
    line: Line, make_config: MakeConfig, *, is_async: bool
) -> None:
    queue = QueueManager(make_config(redis_url=line.proxy.url, max_connection_retries=0))
    queue.enqueue({}, "shop.work")
    passed = 0

    def lose_later(what: str, command: str, _: bool) -> bool:
        nonlocal passed
        passed += what == "reply" and command == "enqueue"
        if passed == 1:
            line.proxy._losses["reply", "enqueue"] = Loss(1.0, 0, 1)
        return False

    line.fill_when(lose_later)
    with pytest.raises(ServerUnreachableError) as caught:
        await call(queue, "enqueue_batch", ENTITIES, "shop.work", is_async=is_async)
    assert len(caught.value.queued_ids) == 1000
    assert caught.value.outcome_unknown
    await queue.aclose()


@pytest.mark.parametrize("delay", [0, 60])
async def test_a_purge_whose_answer_is_lost_tells_all_that_it_removed(
    line: Line, delay: int, *, is_async: bool
) -> None:
    line.queue.enqueue_batch(ENTITIES[:300], "shop.work", delay=delay)
    line.proxy.lose("reply", "purge", times=1)
    assert await call(line.queue, "purge_queue", "work", is_async=is_async) == 300
    assert line.config.transport.run(line.config.commands.status("0")).delayed == line.waiting() == 0
