"""Operations from enqueue to their end: success, retries, failure, time limits, results and records."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.flow.hostile import block, released
from tests.kit.configs import MakeConfig
from tests.kit.contents import next_letter, read_record
from tests.kit.foreign import push
from tests.kit.inbox import Inbox
from tests.kit.operations import ONCE, either, raising
from tests.kit.waiting import eventually
from tests.kit.workers import first_letter, running

AT_ONCE = QueueRetryConfig.fixed(0.0, max_attempts=3)


class Panic(BaseException):
    """What extension modules raise for a panic: no Exception."""


class Hostile(Exception):  # noqa: N818 - its text is what is tested
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
async def test_an_operation_of_each_priority_is_processed_and_recorded(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox, priority: str
) -> None:
    async def work(entity: Any) -> Any:
        inbox.put(entity)
        return {"doubled": entity["n"] * 2}

    answer = queue.enqueue({"n": 4}, work, priority=priority)
    assert (answer["status"], answer["has_callbacks"]) == ("queued", False)
    before = read_record(client, config, answer["operation_id"])
    assert (before.status, before.queue, before.ttl_ms) == ("queued", f"{priority}:work", -1)
    async with running(QueueWorker(config)):
        assert await inbox.next() == {"n": 4}
    after = read_record(client, config, answer["operation_id"])
    assert (after.status, after.queue, after.attempts) == ("succeeded", f"{priority}:work", 1)
    assert after.body == {"result": {"doubled": 8}}
    assert 0 < after.ttl_ms <= 300_000
    metrics = config.get_metrics()
    assert (metrics["enqueued"], metrics["processed"], metrics["failed"], metrics["success_rate"]) == (1, 1, 0, 100)


async def test_the_record_of_a_finished_operation_lives_as_long_as_configured(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox
) -> None:
    for result_ttl, longest_ms, body in ((7.0, 7_000, {"result": None}), (0.0, 60_000, None)):
        config = make_config(result_ttl=result_ttl)
        operation_id = QueueManager(config).enqueue({}, inbox.put)["operation_id"]
        async with running(QueueWorker(config)):
            await inbox.next()
        record = read_record(client, config, operation_id)
        assert (record.status, record.body) == ("succeeded", body)
        assert longest_ms - 5_000 < record.ttl_ms <= longest_ms


async def test_an_operation_that_fails_runs_again_until_it_succeeds(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox, is_async: bool
) -> None:
    attempts = 0

    def work(entity: Any) -> str:
        nonlocal attempts
        attempts += 1
        inbox.put(attempts)
        if attempts < 3:
            raise ValueError(f"attempt {attempts}")
        return "done"

    answer = queue.enqueue({}, either(work, is_async=is_async), retry_config=AT_ONCE)
    async with running(QueueWorker(config)):
        assert await inbox.take(3) == [1, 2, 3]
    record = read_record(client, config, answer["operation_id"])
    assert (record.status, record.attempts, record.body) == ("succeeded", 3, {"result": "done"})
    metrics = config.get_metrics()
    assert (metrics["processed"], metrics["retried"], metrics["errors"], metrics["failed"]) == (1, 2, 2, 0)


async def test_a_retry_waits_for_its_delay_and_is_recorded_as_delayed(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    def work(entity: Any) -> None:
        inbox.put(time.monotonic())
        raise ValueError("not yet")

    retry_config = QueueRetryConfig.custom([0.2, 0.4], max_attempts=3)
    answer = queue.enqueue({}, work, retry_config=retry_config)
    async with running(QueueWorker(config)):
        first = await inbox.next()
        await eventually(lambda: client.zcard(config.keys.delayed) == 1, "the retry waits")
        record = read_record(client, config, answer["operation_id"])
        assert (record.status, record.attempts, record.ttl_ms) == ("delayed", 1, -1)
        assert record.body.pop("traceback").endswith('raise ValueError("not yet")\nValueError: not yet\n')
        assert record.body == {"error": "not yet", "error_type": "ValueError"}
        assert queue.get_queue_status()[config.keys.delayed] == 1
        second, third = await inbox.take(2)
    assert second - first >= 0.17
    assert third - second >= 0.35


@pytest.mark.parametrize("delay", [0.0, 0.2])
async def test_a_retry_does_not_wait_for_an_idle_worker_to_look_again(
    queue: QueueManager, config: QueueConfig, inbox: Inbox, delay: float
) -> None:
    """Slots that were idle before the failure block for up to 5 s, but not past the time at which the retry is due."""

    def work(entity: Any) -> None:
        inbox.put("ran")
        raise ValueError("boom")

    async with running(QueueWorker(config)):
        queue.enqueue({}, work, retry_config=QueueRetryConfig.fixed(delay, max_attempts=2))
        async with asyncio.timeout(2.0):
            assert await inbox.take(2) == ["ran", "ran"]


@pytest.mark.parametrize(
    "error, reason",
    [
        (SystemExit(3), "3"),
        (asyncio.CancelledError(), "cancelled"),
        (Hostile(), "cannot be read"),
        (ValueError("file \udcff"), "file"),
        (Panic("panicked"), "panicked"),
        (TimeoutError("of its own"), "of its own"),
        (StopIteration(), "StopIteration"),
        (ValueError("x" * 100_000), "x" * 1000),
        (ExceptionGroup("many", [ValueError("a")]), "many"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_whatever_a_processor_raises_fails_its_operation_alone(
    config: QueueConfig, client: redis.Redis, inbox: Inbox, is_async: bool, error: BaseException, reason: str
) -> None:
    """The worker's only slot goes on."""
    queue = QueueManager(config)
    queue.enqueue({}, raising(error, is_async=is_async), retry_config=ONCE)
    async with running(QueueWorker(config, max_workers=1)):
        dead_letter = await next_letter(client, config.failures_queue)
        queue.enqueue({"n": "next"}, inbox.put)
        assert await inbox.next() == {"n": "next"}
    assert reason in dead_letter["failure_reason"]
    assert len(dead_letter["failure_reason"]) < 10_000
    assert config.get_metrics()["timeouts"] == 0


async def test_no_retry_begins_when_the_total_is_used_up(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    def work(entity: Any) -> None:
        inbox.put("ran")
        raise ValueError("boom")

    queue.enqueue({}, work, retry_config=QueueRetryConfig.fixed(5.0, max_attempts=9, timeout=3.0))
    dead_letter = await first_letter(config, client)
    assert await inbox.next() == "ran"
    assert inbox.empty
    assert dead_letter["attempts"] == 1
    assert "total timeout of 3.0 s" in dead_letter["failure_reason"]


async def test_an_attempt_is_limited_to_what_is_left_of_the_total(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    """The total runs from the first attempt on."""
    attempts = 0

    async def work(entity: Any) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("first")
        await asyncio.Event().wait()

    queue.enqueue({}, work, retry_config=QueueRetryConfig.fixed(0.0, max_attempts=9, timeout=0.3))
    dead_letter = await first_letter(config, client, work_timeout=8.0)
    assert dead_letter["error_type"] == "TimeoutError"
    assert "0.3 s" in dead_letter["failure_reason"]


@pytest.mark.parametrize(
    "result", [float("nan"), object(), {"a": {1, object()}}, "\ud800", {1: 1, "1": 2}, 10**5000, "x" * 2_000_000],
    ids=["nan", "object", "nested", "surrogate", "names", "digits", "large"],
)  # fmt: skip
async def test_a_result_that_json_cannot_carry_stays_a_success(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox, result: Any
) -> None:
    async def work(entity: Any) -> Any:
        return result

    answer = queue.enqueue({}, work, on_success=inbox.put)
    async with running(QueueWorker(config, max_workers=1)):
        data = await inbox.next()
    assert data["result"] is None
    assert data["result_error"].startswith("result")
    record = read_record(client, config, answer["operation_id"])
    assert (record.status, record.body["result"]) == ("succeeded", None)
    assert record.body["result_error"] == data["result_error"]
    assert config.get_metrics()["processed"] == 1


async def test_unknown_members_of_an_item_are_kept_through_retries_to_the_dead_letter(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    config.register_callback(raising(ValueError("boom"), is_async=False), "fail", "shop")
    raw = b'{"price":1.10,  "big":123456789012345678901234567890}'
    item = (
        b'{"operation_id":"op","processor":"fail","processor_module":"shop","max_attempts":2,"delays":[0],"x":%b}' % raw
    )
    push(client, config, item)
    dead_letter = await first_letter(config, client)
    assert dead_letter["attempts"] == 2
    kept: Any = client.lindex(config.failures_queue, 0)
    assert b'"x":' + raw in kept


async def test_a_long_operation_is_recorded_as_running(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    answer = queue.enqueue({}, block)
    async with running(QueueWorker(config)):
        await eventually(
            lambda: read_record(client, config, answer["operation_id"]).status == "running", "the record says running"
        )
        record = read_record(client, config, answer["operation_id"])
        assert (record.queue, record.ttl_ms) == ("normal:block", -1)
        assert queue.get_queue_status()[f"{config.queue_prefix}running"] == 1
        released.set()
    assert read_record(client, config, answer["operation_id"]).status == "succeeded"


async def test_delayed_operations_run_when_they_are_due_and_in_that_order(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    enqueued = time.monotonic()
    for delay in (0.3, 0.1, 0.2, 0.0):
        answer = queue.enqueue({"delay": delay}, inbox.put, delay=delay)
        assert answer["status"] == "queued"
        assert read_record(client, config, answer["operation_id"]).status == ("delayed" if delay else "queued")
    async with running(QueueWorker(config, max_workers=1)):
        assert await inbox.take(4) == [{"delay": delay} for delay in (0.0, 0.1, 0.2, 0.3)]
        assert time.monotonic() - enqueued >= 0.3


async def test_a_batch_is_processed_whole_and_once(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    answers = queue.enqueue_batch([{"n": n} for n in range(2500)], inbox.put, priority="low")
    assert len({answer["operation_id"] for answer in answers}) == 2500
    async with running(QueueWorker(config)):
        seen = [entity["n"] for entity in await inbox.take(2500)]
    assert sorted(seen) == list(range(2500))
    assert inbox.empty
    status = queue.get_queue_status()
    assert (status["total_items"], status[f"{config.queue_prefix}running"]) == (0, 0)
    assert status["metrics"]["processed"] == config.get_metrics()["processed"] == 2500
    assert config.get_metrics()["avg_process_time"] > 0


def test_an_item_is_one_json_document_with_its_id_first(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    queue.enqueue({"ä": [1.5, None]}, print, operation_id="op", queue_name="jobs", timeout=3, on_success=print)
    item: Any = client.lindex(config.get_queue_key("jobs"), 0)
    assert item.startswith(b'{"operation_id":"op",')
    decoded = json.loads(item)
    assert decoded.pop("timestamp") == pytest.approx(time.time(), abs=60)
    assert decoded.pop("nonce")
    assert decoded == {
        "operation_id": "op", "entity": {"ä": [1.5, None]}, "processor": "print", "processor_module": "builtins",
        "timeout": 3.0, "on_success": "print", "on_success_module": "builtins",
    }  # fmt: skip
