"""Callbacks: called once with the documented data, tried again when they raise, and never able to change a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.model.registry import Registry
from tests.flow.hostile import hang
from tests.kit.contents import documents, next_letter, read_record
from tests.kit.inbox import Inbox
from tests.kit.operations import ONCE, fail, raising
from tests.kit.workers import first_letter, running


def succeed(entity: Any) -> Any:
    return {"seen": entity}


async def test_a_failure_callback_is_called_after_the_last_attempt_only(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    attempts: list[Any] = []

    def work(entity: Any) -> None:
        attempts.append(entity)
        raise ValueError(f"attempt {len(attempts)}")

    retry = QueueRetryConfig.fixed(0.0, max_attempts=2)
    queue.enqueue({"n": 1}, work, on_failure=inbox.put, retry_config=retry)
    async with running(QueueWorker(config, max_workers=1)):
        assert (await inbox.next())["error"] == "attempt 2"
    assert inbox.empty
    assert len(attempts) == 2


async def test_the_callback_of_the_other_outcome_is_not_called(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    queue.enqueue({}, succeed, on_failure=inbox.put)
    queue.enqueue({}, fail, on_success=inbox.put, retry_config=ONCE)
    queue.enqueue({}, succeed, on_success=inbox.put, operation_id="last", priority="low")
    async with running(QueueWorker(config, max_workers=1)):
        assert (await inbox.next())["operation_id"] == "last"
    assert inbox.empty


async def test_a_callback_may_return_a_coroutine_or_be_an_object(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    class Told:
        async def __call__(self, data: dict[str, Any]) -> None:
            inbox.put(data["entity"])

    async def later(data: dict[str, Any]) -> None:
        inbox.put(data["entity"])

    config.register_callback(Told(), "told", "shop")
    queue.enqueue({"n": 1}, succeed, on_success=lambda data: later(data))  # noqa: PLW0108 - a sync function on purpose
    async with running(QueueWorker(config)):
        assert await inbox.next() == {"n": 1}
        queue.enqueue({"n": 2}, succeed, on_success="shop.told")
        assert await inbox.next() == {"n": 2}


@pytest.mark.parametrize("phase, processor", [("on_success", succeed), ("on_failure", fail)])
async def test_a_missing_callback_is_sought_once_and_a_system_error_with_its_phase_and_the_verdict_stands(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, phase: str,
    processor: Callable[..., Any],
) -> None:  # fmt: skip
    """As with processors, only what may pass is tried again."""
    sought: list[str] = []
    resolve = Registry.resolve

    def counting(registry: Registry, name: str, module: str | None) -> Any:
        sought.append(name)
        return resolve(registry, name, module)

    monkeypatch.setattr(Registry, "resolve", counting)
    options: dict[str, Any] = {phase: "no.such.callback"}
    answer = queue.enqueue({"n": 1}, processor, retry_config=ONCE, **options)
    letter = await first_letter(config, client, "system_errors")
    assert documents(client, config.system_errors_queue) == [letter]
    assert (letter["phase"], letter["operation_id"], letter["entity"]) == (phase, answer["operation_id"], {"n": 1})
    assert phase in letter["failure_reason"]
    assert letter["error_type"] == "UnresolvableNameError"
    verdict = "succeeded" if phase == "on_success" else "failed"
    assert read_record(client, config, answer["operation_id"]).status == verdict
    metrics = config.get_metrics()
    assert (metrics["processed"], metrics["failed"]) == ((1, 0) if phase == "on_success" else (0, 1))
    assert metrics["system_errors"] == 1
    assert sought == ["callback"]


async def test_a_callback_that_raises_is_tried_again(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    calls = 0

    def told(data: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ValueError("not yet")
        inbox.put(calls)

    queue.enqueue({}, succeed, on_success=told)
    async with running(QueueWorker(config)):
        assert await inbox.next() == 3
    assert config.get_metrics()["system_errors"] == 0


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), StopIteration()], ids=lambda e: type(e).__name__)
async def test_a_callback_that_keeps_raising_is_a_system_error_and_the_verdict_stands(
    config: QueueConfig, client: redis.Redis, inbox: Inbox, error: BaseException, is_async: bool
) -> None:
    """The worker's only slot goes on; no error of a callback is taken for a time-out."""
    queue = QueueManager(config)

    answer = queue.enqueue({}, succeed, on_success=raising(error, is_async=is_async))
    async with running(QueueWorker(config, max_workers=1, work_timeout=3.0)):
        letter = await next_letter(client, config.system_errors_queue)
        queue.enqueue({"n": "next"}, inbox.put)
        assert await inbox.next() == {"n": "next"}
    assert letter["phase"] == "on_success"
    assert letter["error_type"] != "TimeoutError"
    assert read_record(client, config, answer["operation_id"]).status == "succeeded"
    assert config.get_metrics()["processed"] == 2


async def test_a_callback_that_hangs_is_ended_at_the_limit_of_the_worker(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    queue.enqueue({}, succeed, on_success=hang)
    letter = await first_letter(config, client, "system_errors", work_timeout=0.1)
    assert (letter["phase"], letter["error_type"]) == ("on_success", "TimeoutError")


async def test_callbacks_come_before_further_operations(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    """One slot: the callback of the first operation runs before the third operation at the latest."""

    async def work(entity: dict[str, Any]) -> None:
        inbox.put(("work", entity["n"]))

    async def told(data: dict[str, Any]) -> None:
        inbox.put(("told", data["entity"]["n"]))

    queue.enqueue_batch([{"n": n} for n in range(50)], work, on_success=told, priority="high")
    async with running(QueueWorker(config, max_workers=1)):
        events = await inbox.take(100)
    assert sorted(n for kind, n in events if kind == "told") == list(range(50))
    assert events.index(("told", 0)) < events.index(("work", 49))
