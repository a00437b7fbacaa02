"""Functions that only promise their work are refused at enqueue, or fail; a result that cannot be kept is told of."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import redis

from queue_system import InvalidInputError, QueueConfig, QueueManager, QueueWorker
from tests.kit.contents import key_space
from tests.kit.logs import LineLogger
from tests.kit.operations import ONCE
from tests.kit.waiting import eventually
from tests.kit.workers import first_letter, running


def steps(entity: Any) -> Iterator[int]:
    """A generator function: calling it runs nothing."""
    yield 1


async def async_steps(entity: Any) -> AsyncIterator[int]:
    """Its async twin."""
    yield 1


class Stepper:
    """An object with a generator for its call, and for a method."""

    def __call__(self, entity: Any) -> Iterator[int]:
        yield 1

    def method(self, entity: Any) -> Iterator[int]:
        yield 1


LAZY: list[Callable[..., Any]] = [
    steps, async_steps, functools.partial(steps), functools.partial(functools.partial(async_steps)), Stepper(),
    Stepper().method,
]  # fmt: skip


@pytest.mark.parametrize("lazy", LAZY, ids=lambda fn: type(fn).__name__)
async def test_a_generator_function_is_refused_wherever_it_is_given(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, lazy: Callable[..., Any]
) -> None:
    async def work(entity: Any) -> None:
        """Do nothing."""

    before = key_space(client, config.queue_prefix)
    ways: dict[str, Callable[[], Any]] = {
        "processor": lambda: queue.enqueue({}, lazy),
        "on_success": lambda: queue.enqueue({}, work, on_success=lazy),
        "on_failure": lambda: queue.enqueue_batch([{}], work, on_failure=lazy),
        "callback": lambda: config.register_callback(lazy, "lazy"),
    }
    for field, give in ways.items():
        with pytest.raises(InvalidInputError, match=f"{field}: .*generator"):
            give()
    with pytest.raises(InvalidInputError, match="generator"):
        await queue.aenqueue({}, lazy)
    assert key_space(client, config.queue_prefix) == before


async def coroutine(entity: Any) -> str:
    """What somebody forgot to await."""
    return "never"


async def forget_to_await(entity: Any) -> Any:
    return coroutine(entity)


def return_a_generator(entity: Any) -> Any:
    return steps(entity)


async def return_an_async_generator(entity: Any) -> Any:
    return async_steps(entity)


def return_a_map(entity: Any) -> Any:
    return map(str, [1, 2])


async def return_a_future(entity: Any) -> Any:
    return Future[int]()


@contextlib.contextmanager
def within(entity: Any) -> Iterator[None]:
    yield


def return_an_awaitable_that_returns_one(entity: Any) -> Any:
    return forget_to_await(entity)


PROMISING: list[Callable[..., Any]] = [
    forget_to_await, return_a_generator, return_an_async_generator, return_a_map, return_a_future, within,
    return_an_awaitable_that_returns_one,
]  # fmt: skip


@pytest.mark.parametrize("processor", PROMISING, ids=lambda fn: fn.__name__)
async def test_a_result_that_is_work_not_done_is_a_failure(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, processor: Callable[..., Any]
) -> None:
    queue.enqueue({}, processor, retry_config=ONCE)
    letter = await first_letter(config, client, max_workers=1)
    assert letter["error_type"] == "TypeError"
    assert "has not run" in letter["failure_reason"]


async def test_a_callback_that_only_promises_its_work_has_failed(
    config: QueueConfig, queue: QueueManager, client: redis.Redis
) -> None:
    async def work(entity: Any) -> None:
        """Do nothing."""

    queue.enqueue({}, work, on_success=return_a_generator)
    letter = await first_letter(config, client, "system_errors", max_workers=1)
    assert letter["error_type"] == "TypeError"


async def test_a_result_that_cannot_be_kept_is_logged_once_with_its_operation(
    config: QueueConfig, queue: QueueManager, log: LineLogger
) -> None:
    async def work(entity: Any) -> object:
        return object()

    answer = queue.enqueue({}, work)
    async with running(QueueWorker(config, max_workers=1)):
        await eventually(lambda: config.get_metrics()["processed"] == 1, "it succeeded")
    (line,) = [line for line in log.lines if "result" in line.message]
    assert (line.level, line.fields["operation_id"]) == ("warning", answer["operation_id"])
    assert "result" in line.fields["result_error"]
