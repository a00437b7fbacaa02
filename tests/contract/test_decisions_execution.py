"""What is decided where the specification is silent: limits, attempts, results and callbacks of an operation."""

from __future__ import annotations

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
from tests.kit.waiting import eventually
from tests.kit.workers import running

ONCE = QueueRetryConfig(max_attempts=1)


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
        assert [dead_letter["operation_id"] for dead_letter in documents(raw, key)] == ["0", str(week - 3600)]
