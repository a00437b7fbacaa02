"""One execution: its result or error, its limit, and how it ends when the worker stops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from queue_system.execution.executor import Executor
from queue_system.execution.slots import Slot
from queue_system.model.verdict import Interrupted, Outcome, Raised, Succeeded
from queue_system.tracebacks import describe_error

LONG_S = 30.0
SHORT_S = 0.03


class Silent(Exception):  # noqa: N818 - its text is what is tested
    """An error without a text."""


class Hostile(Exception):  # noqa: N818
    """An error whose text raises what it is given."""

    def __init__(self, trap: BaseException) -> None:
        super().__init__()
        self.trap = trap

    def __str__(self) -> str:
        raise self.trap


class NotAText(Exception):  # noqa: N818
    """An error whose text is no string."""

    def __str__(self) -> str:
        number: Any = 5
        return number  # type: ignore[no-any-return]


class Panic(BaseException):
    """What extension modules raise for a panic: no Exception."""


class Awaiting:
    """An object that is called asynchronously."""

    async def __call__(self, argument: Any) -> Any:
        return argument


class Unhashable:
    """A callable that compares by value and so has no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)

    def __call__(self, argument: Any) -> Any:
        return argument


class Stage:
    """An executor with one slot whose task runs what a test asks for."""

    def __init__(self) -> None:
        self.executor = Executor(1, asyncio.get_running_loop())
        self.slot: Slot = self.executor.slots[0]

    def begin(self, processor: Callable[..., Any], limit_s: float = LONG_S, argument: Any = 7) -> asyncio.Task[Outcome]:
        self.slot.delivery, self.slot.started = object(), time.monotonic()
        task = asyncio.create_task(self.executor.run(self.slot, processor, argument, limit_s))
        owner: Any = task  # here the slot's task is a single execution
        self.slot.task = owner
        return task

    async def begun(self, processor: Callable[..., Awaitable[Any]]) -> asyncio.Task[Outcome]:
        """Begin, and wait until the processor runs."""
        started = asyncio.Event()

        async def noted(argument: Any) -> Any:
            started.set()
            return await processor(argument)

        task = self.begin(noted)
        await asyncio.wait_for(started.wait(), 5)
        return task

    async def run(self, processor: Callable[..., Any], limit_s: float = LONG_S) -> Outcome:
        return await asyncio.wait_for(self.begin(processor, limit_s), 10)

    async def raised(self, processor: Callable[..., Any], limit_s: float = LONG_S) -> Raised:
        """Run what comes to no result."""
        outcome = await self.run(processor, limit_s)
        assert isinstance(outcome, Raised)
        return outcome


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A fresh stage, closed after the test."""
    fresh = Stage()
    yield fresh
    fresh.executor.close()


async def give_back(argument: Any) -> Any:
    return argument


def give_back_later(argument: Any) -> Awaitable[Any]:
    return give_back(argument)


async def hang(_: Any) -> None:
    await asyncio.Event().wait()


FUNCTIONS = [give_back, lambda x: x, give_back_later, functools.partial(give_back)]


@pytest.mark.parametrize("processor", [*FUNCTIONS, Awaiting(), Awaiting().__call__, Unhashable()])
async def test_a_processor_of_any_kind_succeeds_with_its_result(stage: Stage, processor: Callable[..., Any]) -> None:
    assert await stage.run(processor) == Succeeded(7)


async def test_a_sync_processor_runs_in_a_thread_and_an_async_one_on_the_loop(stage: Stage) -> None:
    async def here(_: Any) -> int:
        return threading.get_ident()

    assert await stage.run(here) == Succeeded(threading.get_ident())
    outcome = await stage.run(lambda _: threading.get_ident())
    assert isinstance(outcome, Succeeded)
    assert outcome.result != threading.get_ident()


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    "error, text, name",
    [
        (ValueError("no"), "no", "ValueError"),
        (Silent(), "Silent", "Silent"),
        (SystemExit(3), "3", "SystemExit"),
        (TimeoutError("mine"), "mine", "TimeoutError"),
        (asyncio.CancelledError(), "cancelled from within", "CancelledError"),
        (Hostile(RuntimeError()), "cannot be read", "Hostile"),
        (Hostile(Panic()), "cannot be read", "Hostile"),
        (NotAText(), "cannot be read", "NotAText"),
        (Panic("panicked"), "panicked", "Panic"),
        (StopAsyncIteration(), "StopAsyncIteration", "StopAsyncIteration"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_a_processor_raises_is_an_outcome(
    stage: Stage, is_async: bool, error: BaseException, text: str, name: str
) -> None:
    """Nothing that a processor raises ends the slot; only KeyboardInterrupt itself is meant for the process."""

    def fail(_: Any) -> None:
        raise error

    async def fail_async(_: Any) -> None:
        raise error

    outcome = await stage.raised(fail_async if is_async else fail)
    assert (outcome.error_type, outcome.timed_out) == (name, False)
    assert text in outcome.error


@pytest.mark.parametrize("processor", [lambda: None, lambda a, b: None])
async def test_a_processor_that_takes_other_arguments_is_a_type_error(
    stage: Stage, processor: Callable[..., Any]
) -> None:
    assert (await stage.raised(processor)).error_type == "TypeError"


async def test_an_async_processor_is_ended_at_its_limit(stage: Stage) -> None:
    outcome = await stage.raised(hang, SHORT_S)
    assert outcome.error == "the attempt timed out after 0.03 s: work_timeout"
    assert (outcome.error_type, outcome.timed_out) == ("TimeoutError", True)
    assert await stage.run(give_back) == Succeeded(7)


async def test_a_sync_processor_is_given_up_at_its_limit_and_its_late_result_is_dropped(stage: Stage) -> None:
    go_on = threading.Event()
    assert (await stage.raised(lambda _: go_on.wait(5), SHORT_S)).timed_out
    assert stage.executor.threads.abandoned == 1
    go_on.set()
    assert await stage.run(lambda _: "next") == Succeeded("next")


async def test_a_processor_that_swallows_its_cancellation_counts_as_timed_out(stage: Stage) -> None:
    async def stubborn(_: Any) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "finished nevertheless"

    assert (await stage.raised(stubborn, SHORT_S)).timed_out
    assert not stage.slot.expired
    assert await stage.run(give_back) == Succeeded(7)


async def test_a_processor_that_goes_on_after_its_cancellation_gets_another(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_system.execution.executor.CANCEL_AGAIN_S", SHORT_S)
    cancellations = 0

    async def stubborn(_: Any) -> None:
        nonlocal cancellations
        while cancellations < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellations += 1

    assert (await stage.raised(stubborn, SHORT_S)).timed_out
    assert cancellations == 2


async def test_no_time_left_ends_the_attempt_at_once(stage: Stage) -> None:
    assert (await stage.raised(hang, 0.0)).timed_out


async def test_a_shorter_limit_that_comes_later_is_kept(stage: Stage) -> None:
    """One timer serves all slots: it follows the nearest deadline."""
    executor = Executor(2, asyncio.get_running_loop())
    tasks = []
    for slot, limit in zip(executor.slots, [LONG_S, SHORT_S], strict=True):
        slot.delivery, slot.started = object(), time.monotonic()
        task = asyncio.create_task(executor.run(slot, hang, None, limit))
        owner: Any = task
        slot.task = owner
        tasks.append(task)
    outcome = await asyncio.wait_for(tasks[1], 5)
    assert isinstance(outcome, Raised)
    assert outcome.timed_out
    assert not tasks[0].done()
    executor.stop_slot(executor.slots[0])
    assert await tasks[0] == Interrupted()
    executor.close()


async def test_a_stopping_worker_interrupts(stage: Stage) -> None:
    task = await stage.begun(hang)
    stage.executor.stop_slot(stage.slot)
    assert await task == Interrupted()
    assert not stage.slot.stopped
    assert task.cancelling() == 0


async def test_a_result_that_comes_in_spite_of_the_stop_counts(stage: Stage) -> None:
    async def work(_: Any) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "saved"

    task = await stage.begun(work)
    stage.executor.stop_slot(stage.slot)
    assert await task == Succeeded("saved")


async def test_a_cancellation_that_the_worker_did_not_ask_for_is_a_failure(stage: Stage) -> None:
    """Whoever asked for it: the processor itself, a timer that it set, or the application."""
    task = await stage.begun(hang)
    task.cancel()
    outcome = await task
    assert isinstance(outcome, Raised)
    assert (outcome.error_type, outcome.timed_out) == ("CancelledError", False)


async def test_stopping_a_slot_that_runs_nothing_changes_nothing(stage: Stage) -> None:
    stage.executor.stop_slot(stage.slot)
    assert not stage.slot.stopped
    assert await stage.run(give_back) == Succeeded(7)


def test_an_error_is_described_by_its_text_or_its_type() -> None:
    assert describe_error(ValueError("no")) == "no"
    assert describe_error(ValueError()) == "ValueError"
    assert len(describe_error(ValueError("\udcff" * 1_000_000))) < 9_000
    assert describe_error(Hostile(ValueError())) == "Hostile (its text cannot be read)"
