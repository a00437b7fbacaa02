"""Whatever a processor or callback does to its task, event loop or worker: its attempt is judged, and others run."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import redis
import uvloop

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.monitoring.health import health_of
from queue_system.supervision.signals import handling
from tests.flow.hostile import (
    LONG_S,
    block,
    blocked,
    cancel_itself,
    cancel_itself_and_return,
    ignore_cancellations,
    named,
    own_task,
    released,
)
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, next_letter, read_record
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.operations import ONCE, raising
from tests.kit.waiting import eventually
from tests.kit.workers import running

_variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


async def cancel_itself_often(_: Any) -> None:
    for _ in range(3):
        own_task().cancel()
    await asyncio.sleep(LONG_S)


async def be_cancelled_by_a_timer(_: Any) -> None:
    asyncio.get_running_loop().call_later(0.01, own_task().cancel)
    await asyncio.sleep(LONG_S)


async def be_cancelled_by_a_child(_: Any) -> None:
    parent = own_task()

    async def child() -> None:
        parent.cancel()

    await asyncio.gather(asyncio.create_task(child()), asyncio.sleep(LONG_S))


async def change_its_context_and_cancel_itself(_: Any) -> None:
    _variable.set(1)
    await cancel_itself(None)


async def await_its_own_task(_: Any) -> None:
    await own_task()


async def fail_in_a_task_group(_: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(LONG_S))
        raise ValueError("one of the group")


class UnreadableError(Exception):
    """Cannot be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt(name)


def raise_what_has_an_unreadable_type(_: Any) -> None:
    """Raise an error whose class cannot be looked at; it is made here, since pytest looks at all in a module."""

    class Unreadable(type):
        def __getattribute__(cls, name: str) -> Any:
            raise SystemExit(name)

    raise Unreadable("UnreadableTypeError", (Exception,), {})  # type: ignore[misc]  # a type that mypy cannot see


async def raise_what_has_an_unreadable_type_in_the_loop(_: Any) -> None:
    raise_what_has_an_unreadable_type(None)


async def stop_the_loop(_: Any) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(LONG_S)


async def close_the_loop(_: Any) -> None:
    asyncio.get_running_loop().close()


async def time_out_as_old_libraries_do(_: Any) -> None:
    """Cancel its own task and turn that into TimeoutError, never taking the cancellation back: async_timeout 4.0.2."""
    handle = asyncio.get_running_loop().call_later(0.01, own_task().cancel)
    try:
        await asyncio.sleep(LONG_S)
    except asyncio.CancelledError:
        raise TimeoutError("too slow") from None
    finally:
        handle.cancel()


async def cancel_a_scope_that_it_never_leaves(_: Any) -> None:
    """Such a scope cancels its task again and again, for as long as that lives."""
    scope = anyio.CancelScope()
    scope.__enter__()
    scope.cancel()
    await anyio.sleep(LONG_S)


FAILING = [
    cancel_itself, cancel_itself_often, be_cancelled_by_a_timer, raising(asyncio.CancelledError),
    be_cancelled_by_a_child, change_its_context_and_cancel_itself, await_its_own_task, fail_in_a_task_group,
    raising(GeneratorExit), raising(KeyboardInterrupt), raising(KeyboardInterrupt, is_async=False),
    raising(SystemExit(7)), stop_the_loop, close_the_loop, raising(UnreadableError),
    raising(UnreadableError, is_async=False), raise_what_has_an_unreadable_type,
    raise_what_has_an_unreadable_type_in_the_loop,
    time_out_as_old_libraries_do, cancel_a_scope_that_it_never_leaves,
]  # fmt: skip


async def swallow_its_own_cancellation(_: Any) -> str:
    own_task().cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(LONG_S)
    return "done"


async def cancel_itself_take_it_back_and_return(_: Any) -> str:
    """Before Python 3.13, what was taken back is thrown all the same, at the next wait of the task."""
    own_task().cancel()
    own_task().uncancel()
    return "done"


async def be_cancelled_later(_: Any) -> str:
    """Leave a timer behind, which finds a slot without work, or one with another's."""
    asyncio.get_running_loop().call_soon(own_task().cancel)
    return "done"


async def leave_scopes_by_their_timeout(_: Any) -> str:
    with anyio.move_on_after(0.01):
        await anyio.sleep(LONG_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(LONG_S)
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, LONG_S)
        group.cancel_scope.cancel()
    return "done"


async def stop_the_loop_by_a_callback(_: Any) -> str:
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.stop)
    await asyncio.sleep(0.01)
    return "done"


SUCCEEDING = [
    swallow_its_own_cancellation, cancel_itself_and_return, cancel_itself_take_it_back_and_return, be_cancelled_later,
    leave_scopes_by_their_timeout,
]  # fmt: skip


async def all_slots_run(queue: QueueManager, inbox: Inbox, slots: int) -> None:
    """Check that so many operations run at the same time."""
    everybody = asyncio.Barrier(slots)

    async def meet(entity: Any) -> None:
        await everybody.wait()
        inbox.put(entity["n"])

    queue.enqueue_batch([{"n": n} for n in range(slots)], meet, retry_config=ONCE)
    assert sorted(await inbox.take(slots)) == list(range(slots))


@pytest.mark.parametrize("processor", FAILING, ids=named)
async def test_what_a_processor_does_to_itself_is_a_failed_attempt_and_costs_no_slot(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, inbox: Inbox, processor: Callable[..., Any]
) -> None:
    queue.enqueue_batch([{}] * 4, processor, retry_config=QueueRetryConfig.fixed(0.0, max_attempts=2))
    async with running(QueueWorker(config, max_workers=2)):
        await eventually(lambda: len(documents(client, config.failures_queue)) == 4, "all have failed", 10)
        await all_slots_run(queue, inbox, 2)
    assert [dead_letter["attempts"] for dead_letter in documents(client, config.failures_queue)] == [2] * 4
    assert config.get_metrics()["retried"] == 4


@pytest.mark.parametrize("processor", SUCCEEDING, ids=named)
async def test_a_cancellation_that_a_processor_gets_over_is_a_success_and_costs_no_slot(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, inbox: Inbox, processor: Callable[..., Any]
) -> None:
    answers = queue.enqueue_batch([{}] * 4, processor, retry_config=ONCE)
    async with running(QueueWorker(config, max_workers=2)):
        await eventually(lambda: config.get_metrics()["processed"] == 4, "all have succeeded", 10)
        await all_slots_run(queue, inbox, 2)
    records = [read_record(client, config, answer["operation_id"]) for answer in answers]
    assert {(record.status, record.body["result"]) for record in records} == {("succeeded", "done")}


async def test_a_job_that_the_application_cancels_has_failed(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, inbox: Inbox
) -> None:
    """From outside of any processor, by the task that the job itself gave away."""
    tasks: list[asyncio.Task[Any]] = []

    async def work(_: Any) -> None:
        tasks.append(own_task())
        inbox.put("runs")
        await asyncio.sleep(LONG_S)

    queue.enqueue({}, work, retry_config=ONCE)
    async with running(QueueWorker(config, max_workers=1)):
        assert await inbox.next() == "runs"
        tasks[0].cancel()
        assert (await next_letter(client, config.failures_queue))["error_type"] == "CancelledError"
        tasks[0].cancel()
        await all_slots_run(queue, inbox, 1)
        tasks[0].cancel()
        await asyncio.sleep(0)
        await all_slots_run(queue, inbox, 1)


FAILING_AT_ONCE = [
    cancel_itself, be_cancelled_by_a_timer, raising(GeneratorExit), raising(KeyboardInterrupt), stop_the_loop,
]  # fmt: skip


@pytest.mark.parametrize("processor", FAILING_AT_ONCE, ids=named)
async def test_what_a_callback_does_to_itself_is_judged_and_costs_no_slot(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, inbox: Inbox, processor: Callable[..., Any]
) -> None:
    async def work(_: Any) -> str:
        return "done"

    @functools.wraps(processor)
    def sync_callback(data: Any) -> Any:
        return processor(data)

    for callback in (processor, sync_callback):
        queue.enqueue({}, work, on_success=callback, retry_config=ONCE)
    async with running(QueueWorker(config, max_workers=2)):
        await eventually(lambda: len(documents(client, config.system_errors_queue)) == 2, "both callbacks failed", 12)
        await all_slots_run(queue, inbox, 2)
    assert config.get_metrics()["processed"] == 4


def run_apart(
    config: QueueConfig, processor: Callable[..., Any], ended: Callable[[QueueConfig], bool], run: Any = asyncio.run
) -> None:
    """Run a worker in a program of its own until the condition holds, or the program ends."""

    async def main() -> None:
        QueueManager(config).enqueue({}, processor, retry_config=QueueRetryConfig.fixed(LONG_S, max_attempts=2))
        worker = QueueWorker(config, max_workers=2)
        await worker.start()
        try:
            await eventually(lambda: ended(config), "the attempt was judged", 10)
        finally:
            await worker.stop(grace=0.1)

    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        run(main())


async def cancel_all_tasks(_: Any) -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(LONG_S)


async def cancel_all_other_tasks_and_wait(_: Any) -> None:
    others = asyncio.all_tasks() - {own_task()}
    for task in others:
        task.cancel()
    await asyncio.wait(others)


@pytest.mark.parametrize("processor", [cancel_all_tasks, cancel_all_other_tasks_and_wait, stop_the_loop], ids=named)
def test_who_ends_the_program_from_within_has_spent_an_attempt(
    config: QueueConfig, client: redis.Redis, processor: Callable[..., Awaitable[Any]]
) -> None:
    """Else it would do so to the next worker, and to the one after that."""
    run_apart(config, processor, lambda config: config.get_metrics().get("retried", 0) == 1)
    assert client.zcard(config.keys.delayed) == 1
    assert client.hget(config.keys.metrics, "retried") == b"1"


async def interrupt_its_process(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(LONG_S)


async def raise_the_signal(_: Any) -> None:
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(LONG_S)


def interrupt_its_process_from_a_thread(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    released.wait(LONG_S)


async def interrupt_its_process_by_to_thread(_: Any) -> None:
    await asyncio.to_thread(interrupt_its_process_from_a_thread, None)


INTERRUPTING = [
    interrupt_its_process, raise_the_signal, interrupt_its_process_from_a_thread, interrupt_its_process_by_to_thread,
]  # fmt: skip


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("processor", INTERRUPTING, ids=named)
def test_who_sends_an_interrupt_to_its_own_program_has_spent_an_attempt(
    config: QueueConfig, client: redis.Redis, processor: Callable[..., Any], run: Any
) -> None:
    """Else one operation could end process after process for ever."""
    before = signal.getsignal(signal.SIGINT)
    run_apart(config, processor, lambda config: config.get_metrics().get("retried", 0) == 1, run)
    assert client.zcard(config.keys.delayed) == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_program_that_ends_without_stopping_its_worker_has_its_signal_handler_back(
    config: QueueConfig, run: Callable[[Any], object]
) -> None:
    async def main() -> None:
        await QueueWorker(config, max_workers=2).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(main())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_from_outside_spends_no_attempt(config: QueueConfig, client: redis.Redis) -> None:
    def interrupt(_: QueueConfig) -> bool:
        if blocked:
            os.kill(os.getpid(), signal.SIGINT)
        return False

    run_apart(config, block, interrupt)
    assert not client.zcard(config.keys.delayed)
    assert client.llen(config.get_queue_key("block")) == 1


def test_a_processor_that_stops_its_own_worker_and_does_not_end_has_spent_an_attempt(
    config: QueueConfig, client: redis.Redis
) -> None:
    async def main() -> None:
        worker = QueueWorker(config, max_workers=2)

        async def work(_: Any) -> None:
            await worker.stop(grace=0.1)
            await asyncio.sleep(LONG_S)

        QueueManager(config).enqueue({}, work, retry_config=QueueRetryConfig.fixed(LONG_S, max_attempts=2))
        await worker.start()
        await eventually(lambda: not worker.running, "the worker has stopped", 10)

    asyncio.run(main())
    assert client.zcard(config.keys.delayed) == 1


async def test_a_slot_whose_task_ends_is_replaced_and_that_is_logged(
    config: QueueConfig, queue: QueueManager, inbox: Inbox, log: LineLogger
) -> None:
    """By whatever means: here its own error."""
    worker = QueueWorker(config, max_workers=2)
    async with running(worker):
        engine = worker._engine
        assert engine is not None
        dispatcher = engine.dispatcher
        take = dispatcher.take

        async def broken() -> Any:
            dispatcher.take = take  # type: ignore[method-assign]
            raise RuntimeError("a bug")

        dispatcher.take = broken  # type: ignore[method-assign]
        queue.enqueue({}, inbox.put)
        await inbox.next()
        await all_slots_run(queue, inbox, 2)
    assert [line.message for line in log.lines].count("a slot ended by itself and is replaced") == 1


async def test_a_processor_that_ignores_its_cancellation_gives_its_slot_up(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_system.execution.executor.CANCEL_AGAIN_S", 0.05)
    monkeypatch.setattr("queue_system.execution.executor.GIVE_UP_AFTER_S", 0.2)
    leave = asyncio.Event()

    async def work(_: Any) -> None:
        while not leave.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                inbox.put("cancelled")

    queue.enqueue({}, work, timeout=0.05, retry_config=ONCE)
    async with running(QueueWorker(config, max_workers=1)) as worker:
        dead_letter = await next_letter(client, config.failures_queue)
        assert (dead_letter["error_type"], dead_letter["attempts"]) == ("TimeoutError", 1)
        assert await inbox.next() == "cancelled"
        await eventually(lambda: worker.abandoned == 1, "it is counted")
        queue.enqueue({"n": 1}, lambda entity: inbox.put(entity["n"]))
        await eventually(lambda: config.get_metrics()["processed"] == 1, "the slot has a successor")
        leave.set()
        await eventually(lambda: worker.abandoned == 0, "it has ended")
    assert config.get_metrics()["processed"] == 1


async def tidy_up_for_long(_: Any) -> None:
    try:
        await asyncio.sleep(LONG_S)
    finally:
        await asyncio.sleep(LONG_S)


async def wait_in_a_thread(_: Any) -> None:
    await asyncio.to_thread(block, None)


NEVER_ENDING = [ignore_cancellations, tidy_up_for_long, wait_in_a_thread, block]
STOPS_WITHIN_S = 20.0
TOO_MANY_ABANDONED = (
    "the queue is left alone: this worker has abandoned too many threads to run its sync work;"
    " other workers go on with it"
)


@pytest.mark.parametrize("stops", [True, False], ids=["stop", "end of asyncio.run"])
def test_the_end_of_a_worker_keeps_its_bound_whatever_runs_and_names_what_it_abandons(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, log: LineLogger, stops: bool
) -> None:
    """And hands all of it back, with no attempt spent."""
    ids = {
        queue.enqueue({}, processor, operation_id=f"op-{processor.__name__}")["operation_id"]
        for processor in NEVER_ENDING
    }

    async def main() -> None:
        worker = QueueWorker(config)
        await worker.start()
        engine = worker._engine
        assert engine is not None
        await eventually(lambda: engine.executor.running == len(ids) and len(blocked) == 2, "all run")
        if stops:
            await worker.stop(grace=0.05)

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < STOPS_WITHIN_S < LONG_S
    assert sum(queue.get_queue_status()[f"{config.queue_prefix}normal:{fn.__name__}"] for fn in NEVER_ENDING) == 4
    (told,) = log.of("operations ignore their cancellation: they are abandoned and run again elsewhere")
    assert "op-ignore_cancellations" in told["operation_ids"].split(", ")
    threads = {line["operation_id"] for line in log.of("a thread is abandoned and runs on")}
    assert threads == {"op-wait_in_a_thread", "op-block"}
    assert not client.exists(config.keys.workers)


async def test_a_worker_that_has_abandoned_many_threads_hands_sync_work_back_and_runs_the_rest(
    config: QueueConfig, queue: QueueManager, inbox: Inbox, log: LineLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_system.execution.runners.threads._LEAST_BOUND", 2)
    monkeypatch.setattr("queue_system.execution.runners.threads._BOUND_FACTOR", 0)
    queue.enqueue_batch([{}] * 8, block, timeout=0.05, retry_config=ONCE)

    async def work(entity: Any) -> None:
        inbox.put(entity["n"])

    async with running(QueueWorker(config, max_workers=1)) as worker:
        await eventually(lambda: worker.abandoned == 2, "two were abandoned")
        await eventually(lambda: bool(log.of(TOO_MANY_ABANDONED)), "that is told")
        queue.enqueue_batch([{"n": n} for n in range(20)], work)
        assert await inbox.take(20) == list(range(20))
        assert health_of(worker).abandoned == worker.abandoned == 2
        resting = queue.get_queue_status()["resting"]
        assert "2 threads passed their time limit and still run" in str(resting)
        released.set()
        await eventually(lambda: worker.abandoned == 0, "they have ended")
        await eventually(lambda: config.get_metrics()["processed"] == 26, "the others run then")
    assert config.get_metrics()["failed"] == 2


class Hostile(BaseException):
    """What nothing but a bare `except` catches."""


class RaisingHandler(logging.Handler):
    """An application's log handler that raises."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        """Raise, whatever the record."""
        raise self._error


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, Hostile])
async def test_a_log_handler_that_raises_costs_no_operation_and_no_slot(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox, error: type[BaseException]
) -> None:
    logger = logging.getLogger(f"hostile.{error.__name__}")
    logger.addHandler(RaisingHandler(error))
    config = make_config(logger=logger)
    queue = QueueManager(config)
    with handling(lambda *_: None, signal.SIGINT):  # else an interrupt is an operator's
        queue.enqueue_batch([{}] * 4, fail_in_a_task_group, retry_config=QueueRetryConfig.fixed(0.0, max_attempts=2))
        async with running(QueueWorker(config, max_workers=2)):
            await eventually(lambda: len(documents(client, config.failures_queue)) == 4, "all have failed", 10)
            await all_slots_run(queue, inbox, 2)


async def set_a_trace_that_raises(_: Any) -> None:
    """Let a debugger's hook fail in the worker's own code, as soon as that handles the result."""

    def trace(frame: Any, _event: str, _argument: Any) -> Any:
        if frame.f_code.co_name == "_settle":
            raise Hostile

    sys.settrace(trace)


async def set_a_profile_that_raises(_: Any) -> None:
    def profile(frame: Any, event: str, _argument: Any) -> Any:
        if event == "call" and frame.f_code.co_name == "_settle":
            raise Hostile

    sys.setprofile(profile)


@pytest.mark.parametrize("processor", [set_a_trace_that_raises, set_a_profile_that_raises], ids=named)
async def test_what_a_processor_lets_the_worker_raise_settles_its_operation_and_costs_no_slot(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, inbox: Inbox, processor: Callable[..., Any]
) -> None:
    before = sys.gettrace(), sys.getprofile()
    queue.enqueue({}, processor, retry_config=ONCE)
    try:
        async with running(QueueWorker(config, max_workers=2)):
            dead_letter = await next_letter(client, config.system_errors_queue)
            sys.settrace(before[0])
            sys.setprofile(before[1])
            assert dead_letter["failure_reason"] == "handling failed: Hostile"
            await all_slots_run(queue, inbox, 2)
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
