"""Operations from enqueue to their end: success, retries, failure, time limits, results and records."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, next_letter, read_record
from tests.kit.inbox import Inbox
from tests.kit.waiting import eventually
from tests.kit.workers import running

AT_ONCE = QueueRetryConfig.fixed(0.0, max_attempts=3)


class Panic(BaseException):
    """What extension modules raise for a panic: no Exception."""


class Hostile(Exception):  # noqa: N818 - its text is what is tested
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(error: BaseException, *, is_async: bool) -> Callable[[Any], Any]:
    """A processor that raises the error."""

    def fail(entity: Any) -> None:
        raise error

    async def fail_async(entity: Any) -> None:
        raise error

    return fail_async if is_async else fail


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


@pytest.mark.parametrize("is_async", [True, False])
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

    async def work_async(entity: Any) -> str:
        return work(entity)

    answer = queue.enqueue({}, work_async if is_async else work, retry_config=AT_ONCE)
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


async def test_after_its_last_attempt_an_operation_is_a_dead_letter(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    answer = queue.enqueue(
        {"n": 1}, raising(ValueError("boom"), is_async=True), queue_name="jobs", retry_config=AT_ONCE
    )
    async with running(QueueWorker(config)):
        dead_letter = await next_letter(client, config.failures_queue)
    assert documents(client, config.failures_queue) == [dead_letter]
    assert (dead_letter["operation_id"], dead_letter["entity"]) == (answer["operation_id"], {"n": 1})
    assert (dead_letter["attempts"], dead_letter["failure_reason"], dead_letter["error_type"]) == (
        3,
        "boom",
        "ValueError",
    )
    assert dead_letter["queue"] == "normal:jobs"
    assert abs(dead_letter["failed_at"] - time.time()) < 60
    assert read_record(client, config, answer["operation_id"]).status == "failed"
    assert queue.get_queue_status()[config.failures_queue] == 1
    assert config.get_metrics()["failed"] == 1


@pytest.mark.parametrize("is_async", [True, False])
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
    queue.enqueue({}, raising(error, is_async=is_async), retry_config=QueueRetryConfig(max_attempts=1))
    async with running(QueueWorker(config, max_workers=1)):
        dead_letter = await next_letter(client, config.failures_queue)
        queue.enqueue({"n": "next"}, inbox.put)
        assert await inbox.next() == {"n": "next"}
    assert reason in dead_letter["failure_reason"]
    assert len(dead_letter["failure_reason"]) < 10_000
    assert config.get_metrics()["timeouts"] == 0


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_attempt_ends_at_its_limit_and_counts_as_a_timeout(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox, is_async: bool
) -> None:
    release = threading.Event()

    def hang(entity: Any) -> None:
        release.wait(5)

    async def hang_async(entity: Any) -> None:
        await asyncio.Event().wait()

    queue.enqueue({}, hang_async if is_async else hang, timeout=0.05, retry_config=QueueRetryConfig(max_attempts=1))
    async with running(QueueWorker(config, max_workers=1)):
        dead_letter = await next_letter(client, config.failures_queue)
        queue.enqueue({"n": "next"}, inbox.put)
        assert await inbox.next() == {"n": "next"}
        release.set()
    assert dead_letter["error_type"] == "TimeoutError"
    assert "0.05 s" in dead_letter["failure_reason"]
    assert config.get_metrics()["timeouts"] == 1


async def test_the_limit_of_the_worker_holds_where_it_is_shorter(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    async def hang(entity: Any) -> None:
        await asyncio.Event().wait()

    queue.enqueue({}, hang, timeout=100.0, retry_config=QueueRetryConfig(max_attempts=1))
    async with running(QueueWorker(config, work_timeout=0.05)):
        assert "0.05 s" in (await next_letter(client, config.failures_queue))["failure_reason"]


async def test_no_retry_begins_when_the_total_is_used_up(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    def work(entity: Any) -> None:
        inbox.put("ran")
        raise ValueError("boom")

    queue.enqueue({}, work, retry_config=QueueRetryConfig.fixed(5.0, max_attempts=9, timeout=3.0))
    async with running(QueueWorker(config)):
        dead_letter = await next_letter(client, config.failures_queue)
    assert await inbox.next() == "ran"
    assert inbox.empty
    assert dead_letter["attempts"] == 1
    assert "total timeout of 3.0 s" in dead_letter["failure_reason"]


@pytest.mark.parametrize("first_fails", [False, True])
async def test_an_attempt_is_limited_to_what_is_left_of_the_total(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, first_fails: bool
) -> None:
    """The total runs from the first attempt on, so it limits that one as well."""
    attempts = 0

    async def work(entity: Any) -> None:
        nonlocal attempts
        attempts += 1
        if first_fails and attempts == 1:
            raise ValueError("first")
        await asyncio.Event().wait()

    queue.enqueue({}, work, retry_config=QueueRetryConfig.fixed(0.0, max_attempts=9, timeout=0.3))
    async with running(QueueWorker(config, work_timeout=8.0)):
        dead_letter = await next_letter(client, config.failures_queue)
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
    client.sadd(config.get_registry_key(), config.get_queue_key("fail"))
    client.lpush(config.get_queue_key("fail"), item)
    async with running(QueueWorker(config)):
        dead_letter = await next_letter(client, config.failures_queue)
    assert dead_letter["attempts"] == 2
    kept: Any = client.lindex(config.failures_queue, 0)
    assert b'"x":' + raw in kept


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_long_operation_is_recorded_as_running(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, is_async: bool
) -> None:
    release = threading.Event()

    def work(entity: Any) -> None:
        release.wait(5)

    async def work_async(entity: Any) -> None:
        await asyncio.to_thread(release.wait, 5)

    answer = queue.enqueue({}, work_async if is_async else work)
    async with running(QueueWorker(config)):
        await eventually(
            lambda: read_record(client, config, answer["operation_id"]).status == "running", "the record says running"
        )
        record = read_record(client, config, answer["operation_id"])
        assert (record.queue, record.ttl_ms) == ("normal:" + ("work_async" if is_async else "work"), -1)
        assert queue.get_queue_status()[f"{config.queue_prefix}running"] == 1
        release.set()
    assert read_record(client, config, answer["operation_id"]).status == "succeeded"


async def test_a_delayed_operation_runs_when_it_is_due(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    enqueued = time.monotonic()
    answer = queue.enqueue({"late": True}, inbox.put, delay=0.3)
    queue.enqueue({"late": False}, inbox.put)
    assert answer["status"] == "queued"
    assert read_record(client, config, answer["operation_id"]).status == "delayed"
    async with running(QueueWorker(config)):
        assert await inbox.take(2) == [{"late": False}, {"late": True}]
        assert time.monotonic() - enqueued >= 0.3


async def test_delayed_operations_run_in_the_order_in_which_they_are_due(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    for delay in (0.3, 0.1, 0.2):
        queue.enqueue({"delay": delay}, inbox.put, delay=delay)
    async with running(QueueWorker(config, max_workers=1)):
        assert await inbox.take(3) == [{"delay": 0.1}, {"delay": 0.2}, {"delay": 0.3}]


async def test_a_processor_and_its_callbacks_can_be_given_by_name(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, "take", "shop.jobs")
    config.register_callback(inbox.put, "told")
    queue.enqueue({"n": 1}, "shop.jobs.take", on_success="told")
    async with running(QueueWorker(config)):
        assert await inbox.next() == {"n": 1}
        assert (await inbox.next())["entity"] == {"n": 1}


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
