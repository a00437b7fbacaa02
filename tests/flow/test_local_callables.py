"""Closures and methods as processors and callbacks: let go when their operations are settled, and never before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.errors import CircuitOpenError
from queue_system.model import local
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.operations import ONCE, either
from tests.kit.waiting import eventually
from tests.kit.workers import running

KEPT = 5


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MOST_SETTLED", KEPT)
    monkeypatch.setattr("queue_system.execution.executor._MOST_PLACES", KEPT)


def processor_of(inbox: Inbox, n: int) -> Callable[[Any], Any]:
    def work(_: Any) -> None:
        inbox.put(n)

    return work


def living(refs: list[weakref.ref[Any]]) -> int:
    gc.collect()
    return sum(ref() is not None for ref in refs)


async def test_processors_whose_operations_are_settled_are_let_go(
    config: QueueConfig, queue: QueueManager, inbox: Inbox, is_async: bool
) -> None:
    refs = []
    for n in range(40):
        processor = either(processor_of(inbox, n), is_async=is_async)
        refs.append(weakref.ref(processor))
        queue.enqueue({}, processor)
        del processor
    assert living(refs) == 40, "all of them are queued"
    async with running(QueueWorker(config, max_workers=3)):
        assert sorted(await inbox.take(40)) == list(range(40))
        await eventually(lambda: living(refs) <= 3 * KEPT, "they are let go", 10)


async def test_what_is_retried_or_has_callbacks_is_kept_until_the_last_of_it_has_run(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    def failing_once(n: int) -> Callable[[Any], Any]:
        tries: list[int] = []

        async def work(_: Any) -> None:
            tries.append(n)
            if len(tries) == 1:
                raise ValueError("once")
            if n % 2:
                raise ValueError("twice")

        return work

    retried = QueueRetryConfig.fixed(0.05, max_attempts=2)
    for n in range(30):
        callback = processor_of(inbox, n)
        queue.enqueue({}, failing_once(n), retry_config=retried, on_success=callback, on_failure=callback)
    async with running(QueueWorker(config, max_workers=4)):
        assert sorted(await inbox.take(30)) == list(range(30))
        await eventually(lambda: len(config.registry.local.known) <= KEPT, "they are let go", 10)
    assert config.get_metrics()["retried"] == 30


async def test_a_dead_letter_whose_processor_was_forgotten_ends_as_one_that_says_so(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, inbox: Inbox
) -> None:
    def failing() -> Callable[[Any], Any]:
        async def fail(_: Any) -> None:
            raise ValueError("no")

        return fail

    queue.enqueue({}, failing(), retry_config=ONCE)
    async with running(QueueWorker(config, max_workers=2)):
        await eventually(lambda: len(documents(client, config.failures_queue)) == 1, "it has failed", 10)
        for n in range(2 * KEPT):
            queue.enqueue({}, processor_of(inbox, n))
        await inbox.take(2 * KEPT)
        await eventually(lambda: len(config.registry.local.known) <= KEPT, "they are let go", 10)
        await queue.aretry_dead_letters()
        await eventually(lambda: len(documents(client, config.system_errors_queue)) == 1, "it cannot run", 10)
    (dead_letter,) = documents(client, config.system_errors_queue)
    assert "which has forgotten it" in dead_letter["failure_reason"]


async def test_what_is_not_queued_after_all_is_let_go(config: QueueConfig, queue: QueueManager, inbox: Inbox) -> None:
    """A duplicate, and what an open breaker refuses."""
    for n in range(20):
        queue.enqueue({}, processor_of(inbox, n), deduplication_key="same")
        queue.enqueue_batch([{}], processor_of(inbox, n), deduplication_key=["same"])
    while not config.breaker.is_open:
        config.breaker.record_failure()
    for n in range(20):
        with pytest.raises(CircuitOpenError):
            queue.enqueue({}, processor_of(inbox, n))
        with pytest.raises(CircuitOpenError):
            queue.enqueue_batch([{}, {}], processor_of(inbox, n))
    assert len(config.registry.local.known) == KEPT + 1
