"""What is decided where the specification is silent: limits, attempts, results and callbacks of an operation."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import Any

import pytest
import redis

import queue_system.maintenance.retention
from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.contract.support import counted
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.waiting import DEADLINE_S, eventually
from tests.kit.workers import running

ONCE = QueueRetryConfig(max_attempts=1)
FOREVER = QueueRetryConfig.fixed(delay=0, max_attempts=100, timeout=0.05)


@pytest.mark.parametrize(
    "arguments, work_timeout",
    [
        ({"timeout": 0.05, "retry_config": ONCE}, 30.0),
        ({"retry_config": ONCE}, 0.05),
        ({"retry_config": FOREVER}, 30.0),
    ],
    ids=["its own", "the worker's", "what is left of the total"],
)
async def test_an_attempt_ends_at_the_smallest_of_its_limits(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, arguments: dict[str, Any], work_timeout: float
) -> None:
    gate = asyncio.Event()

    async def hangs(entity: Any) -> None:
        await gate.wait()

    queue.enqueue({}, hangs, **arguments)
    async with running(QueueWorker(config, work_timeout=work_timeout)):
        try:
            await eventually(lambda: counted(config, "failed"), "the attempt ended", within_s=3)
        finally:
            gate.set()
    (letter,) = documents(raw, config.failures_queue)
    assert (letter["error_type"], letter["attempts"]) == ("TimeoutError", 1)


async def test_the_total_timeout_ends_the_retries(config: QueueConfig, queue: QueueManager, raw: redis.Redis) -> None:
    def breaks(entity: Any) -> None:
        raise OSError("no luck")

    queue.enqueue({}, breaks, retry_config=QueueRetryConfig.fixed(delay=60, timeout=30))
    async with running(QueueWorker(config)):
        await eventually(lambda: counted(config, "failed"))
    (letter,) = documents(raw, config.failures_queue)
    assert letter["attempts"] == 1
    assert letter["failure_reason"].startswith("no luck")


@pytest.mark.parametrize("max_attempts", [1, 3])
async def test_max_attempts_counts_executions_in_all(
    config: QueueConfig, queue: QueueManager, max_attempts: int
) -> None:
    calls = 0

    def breaks(entity: Any) -> None:
        nonlocal calls
        calls += 1
        raise OSError

    queue.enqueue({}, breaks, retry_config=QueueRetryConfig.fixed(delay=0, max_attempts=max_attempts))
    async with running(QueueWorker(config)):
        await eventually(lambda: counted(config, "failed"))
    assert calls == max_attempts


async def test_without_a_retry_config_the_default_one_holds(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis
) -> None:
    """The second of five attempts is due after the first default delay, a second give or take a tenth."""

    async def breaks(entity: Any) -> None:
        raise OSError

    queue.enqueue({}, breaks)
    async with running(QueueWorker(config)):
        await eventually(lambda: counted(config, "retried"))
    due: Any = raw.zrange(config.keys.delayed, 0, 0, withscores=True)
    ((item, due_ms),) = due
    assert "max_attempts" not in item
    now_s, _ = raw.time()
    assert due_ms / 1000 <= now_s + 1 + 1.1


async def test_a_retry_runs_when_it_is_due_though_the_worker_is_idle(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    """An idle worker blocks until the next item is due, not for its longest wait of 5 s."""

    def breaks(entity: Any) -> None:
        inbox.put("called")
        raise OSError

    queue.enqueue({}, breaks, retry_config=QueueRetryConfig.fixed(delay=0.05, max_attempts=3))
    async with running(QueueWorker(config)):
        async with asyncio.timeout(3):
            await inbox.take(3)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_callback_receives_entity_result_or_error_and_id(
    config: QueueConfig, queue: QueueManager, kind: str, fails: bool, inbox: Inbox
) -> None:
    result = (1, uuid.UUID(int=7))

    def work(entity: Any) -> Any:
        if fails:
            raise LookupError("no luck")
        return result

    async def in_loop(data: Any) -> None:
        inbox.put(data)

    def in_thread(data: Any) -> None:
        inbox.put(data)

    callback = in_thread if kind == "sync" else in_loop
    answer = queue.enqueue({"n": 1}, work, retry_config=ONCE, on_success=callback, on_failure=callback)
    async with running(QueueWorker(config)):
        data = await inbox.next()
    expected = {"entity": {"n": 1}, "operation_id": answer["operation_id"]}
    if fails:
        assert data.pop("traceback").endswith("\nLookupError: no luck\n")
        assert data == {**expected, "error": "no luck", "error_type": "LookupError"}
    else:
        assert data == {**expected, "result": [1, str(uuid.UUID(int=7))]}, "the result as JSON gave it back"


async def test_a_result_that_json_cannot_carry_is_a_success_without_result(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:

    def work(entity: Any) -> Any:
        return {"fine": 1, "not": object()}

    config.register_callback(inbox.put, name="note")
    queue.enqueue({}, work, on_success="note", on_failure="note")
    async with running(QueueWorker(config)):
        data = await inbox.next()
    assert data["result"] is None
    assert "result.not" in data["result_error"]
    assert (counted(config, "processed"), counted(config, "failed")) == (1, 0)


async def test_sync_processors_run_in_threads_beside_the_event_loop(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    gate = threading.Event()

    def waits(entity: Any) -> None:
        inbox.put("waits")
        gate.wait(DEADLINE_S)
        inbox.put(threading.current_thread() is threading.main_thread())

    queue.enqueue({}, waits)
    async with running(QueueWorker(config)):
        assert await inbox.next() == "waits"
        gate.set()
        assert await inbox.next() is False


async def test_a_timed_out_thread_is_abandoned_replaced_and_reported(
    config: QueueConfig, queue: QueueManager, log: LineLogger, inbox: Inbox
) -> None:
    gate = threading.Event()

    def waits(entity: Any) -> None:
        gate.wait(DEADLINE_S)

    config.register_callback(inbox.put, name="note")
    queue.enqueue({}, waits, timeout=0.05, retry_config=ONCE, priority="high")
    queue.enqueue({"n": 2}, "note")
    try:
        async with running(QueueWorker(config, max_workers=1)):
            assert await inbox.next() == {"n": 2}
        reports = [line for line in log.lines if "abandoned" in f"{line.message} {line.fields}"]
        assert reports, "a log line or a metric tells of the abandoned thread"
    finally:
        gate.set()


async def test_what_a_processor_sets_in_its_context_does_not_reach_the_next(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    from contextvars import ContextVar  # noqa: PLC0415 - used here only

    user = ContextVar("user", default="nobody")

    async def work(entity: Any) -> None:
        inbox.put(user.get())
        user.set(entity["user"])

    queue.enqueue_batch([{"user": "a"}, {"user": "b"}], work)
    async with running(QueueWorker(config, max_workers=1)):
        assert await inbox.take(2) == ["nobody", "nobody"]


async def test_due_operations_join_the_tail_in_due_order(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, name="note")
    queue.enqueue({"n": 3}, "note", delay=0.06)
    queue.enqueue({"n": 2}, "note", delay=0.03)
    queue.enqueue({"n": 1}, "note")

    def all_due() -> bool:
        seconds, microseconds = raw.time()
        return raw.zcount(config.keys.delayed, "-inf", seconds * 1000 + microseconds // 1000) == 2

    await eventually(all_due)
    async with running(QueueWorker(config, max_workers=1)):
        assert [entity["n"] for entity in await inbox.take(3)] == [1, 2, 3]


async def test_dead_letters_older_than_backup_ttl_are_trimmed_and_that_is_logged(
    config: QueueConfig, raw: redis.Redis, log: LineLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_system.maintenance.retention, "INTERVAL_S", 0.01)
    week = 86400 * 7
    now_s, _ = raw.time()
    for age in (week + 100, week + 50, week - 3600, 0):
        for key in (config.failures_queue, config.system_errors_queue):
            raw.lpush(key, f'{{"operation_id":"{age}","failed_at":{now_s - age}}}')

    def trimmed() -> dict[str, Any]:
        lines = (line.fields for line in log.lines if line.level == "warning" and "dropped" in line.fields)
        return {fields["list"]: fields["dropped"] for fields in lines}

    async with running(QueueWorker(config)):
        await eventually(lambda: len(trimmed()) == 2, "both lists are trimmed")
    assert trimmed() == {"failures": 2, "system_errors": 2}
    for key in (config.failures_queue, config.system_errors_queue):
        assert [letter["operation_id"] for letter in documents(raw, key)] == ["0", str(week - 3600)]
