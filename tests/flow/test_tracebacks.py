"""A failure tells where: in the dead letter, the record, the log, and in whatever shows them."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.testing import run_until_idle
from queue_system.tracebacks import MOST_BYTES
from queue_system.web.events import operation_json
from tests.flow import hostile
from tests.flow.hostile import block, hang
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, next_letter, record_of
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.operations import ONCE
from tests.kit.workers import first_letter, running

SECRET = "hunter2"

PLACES = """
from queue_system import run_in_process


def look_up(customer):
    return customer["custmer"]


@run_in_process
def charge(entity):
    if entity.get("url"):
        raise ConnectionError("no answer from " + entity["url"])
    return look_up(entity)
"""


def look_up(customer: dict[str, str]) -> str:
    return customer["custmer"]


def charge(entity: dict[str, str]) -> str:
    return look_up(entity)


async def charge_async(entity: dict[str, str]) -> str:
    await asyncio.sleep(0)
    return look_up(entity)


def connect(_entity: object) -> None:
    raise ConnectionError(f"no answer from postgres://ada:{SECRET}@db.internal/shop")


def end_without_value(_entity: object) -> None:
    raise StopIteration


@pytest.mark.parametrize("processor", [charge, charge_async])
async def test_dead_letter_record_and_log_of_a_failure_tell_the_lines_that_led_to_it(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, log: LineLogger, processor: Callable[..., Any]
) -> None:
    """Those of the application, and none of this package's."""
    queue.enqueue({}, processor, operation_id="op", retry_config=ONCE)
    await run_until_idle(config)
    (dead_letter,) = documents(client, config.failures_queue)
    record = record_of(queue, "op")
    assert dead_letter["traceback"] == record.traceback
    text = dead_letter["traceback"]
    assert f"in {processor.__name__}\n    return look_up(entity)\n" in text
    assert text.endswith("in look_up\n    return customer[\"custmer\"]\nKeyError: 'custmer'\n")
    assert "/queue_system/" not in text
    (line,) = log.of("operation failed")
    assert isinstance(line["exc_info"], KeyError)
    (shown,) = queue.list_dead_letters().letters
    assert shown.traceback == text
    assert shown.item is not None
    assert "traceback" not in shown.item
    assert "traceback" not in operation_json(record)


async def test_a_processor_in_a_child_process_tells_where_it_failed(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: redis.Redis, log: LineLogger
) -> None:
    (tmp_path / "places_of_failures.py").write_text(PLACES)
    monkeypatch.syspath_prepend(tmp_path)
    config = make_config(logger=log)
    module: Any = importlib.import_module("places_of_failures")
    QueueManager(config).enqueue({}, module.charge, retry_config=ONCE)
    QueueManager(config).enqueue({"url": f"redis://:{SECRET}@h"}, module.charge, retry_config=ONCE)
    await run_until_idle(config)
    found = {dead_letter["error_type"]: dead_letter for dead_letter in documents(client, config.failures_queue)}
    assert "in look_up\n    return customer[\"custmer\"]\nKeyError: 'custmer'\n" in found["KeyError"]["traceback"]
    assert "/queue_system/" not in found["KeyError"]["traceback"]
    assert found["ConnectionError"]["failure_reason"] == "no answer from redis://:***@h"
    assert SECRET not in found["ConnectionError"]["traceback"]
    assert {type(line["exc_info"]).__name__ for line in log.of("operation failed")} == {"KeyError", "ConnectionError"}


async def test_a_retry_warns_and_tells_where_at_debug(
    config: QueueConfig, queue: QueueManager, log: LineLogger
) -> None:
    queue.enqueue({}, charge, operation_id="op", retry_config=QueueRetryConfig.fixed(60, max_attempts=2))
    await run_until_idle(config)
    (warning,), (detail,) = log.of("operation runs again"), log.of("where the attempt failed")
    assert "exc_info" not in warning
    assert isinstance(detail["exc_info"], KeyError)
    assert [line.level for line in log.lines if line.message == "where the attempt failed"] == ["debug"]
    record = record_of(queue, "op")
    assert "in look_up" in (record.traceback or "")


@pytest.mark.parametrize("name", ["on_success", "on_failure"])
async def test_a_failed_callback_tells_where(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, name: str
) -> None:
    async def work(entity: object) -> None:
        if name == "on_failure":
            raise ValueError("boom")

    def told(data: Any) -> None:
        look_up(data)

    callback: dict[str, Any] = {name: told}
    queue.enqueue({}, work, retry_config=ONCE, **callback)
    dead_letter = await first_letter(config, client, "system_errors")
    assert dead_letter["failure_reason"] == f"{name} callback: 'custmer'"
    assert "in told\n    look_up(data)\n" in dead_letter["traceback"]
    assert "/queue_system/" not in dead_letter["traceback"]


@pytest.mark.parametrize("processor, line", [(hang, "await asyncio.Event().wait()"), (block, "released.wait(LONG_S)")])
async def test_a_timeout_is_counted_frees_the_slot_and_tells_from_its_first_line_on_where_the_processor_was(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, inbox: Inbox, processor: Callable[..., Any],
    line: str,
) -> None:  # fmt: skip
    """In a thread, too, which goes on."""
    queue.enqueue({}, processor, retry_config=ONCE, timeout=0.2)
    async with running(QueueWorker(config, max_workers=1)):
        dead_letter = await next_letter(client, config.failures_queue)
        queue.enqueue({"n": "next"}, inbox.put)
        assert await inbox.next() == {"n": "next"}
    assert dead_letter["error_type"] == "TimeoutError"
    assert dead_letter["failure_reason"] == "the attempt timed out after 0.2 s: timeout of the operation"
    first, second, *_ = dead_letter["traceback"].splitlines()
    assert first == "Traceback (most recent call last):"
    assert second.startswith(f'  File "{hostile.__file__}", line ')
    assert second.endswith(f", in {processor.__name__}")
    assert f"in {processor.__name__}\n    {line}\n" in dead_letter["traceback"]
    assert config.get_metrics()["timeouts"] == 1


FAILING_IMPORT = """
import a_dependency_that_is_missing


def work(entity):
    pass
"""


@pytest.mark.parametrize("source", [FAILING_IMPORT, FAILING_IMPORT.replace("import a_dep", "{}['no'] = a_dep")])
async def test_a_failed_import_is_told_from_the_application_s_first_line_on(
    config: QueueConfig, queue: QueueManager, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:  # fmt: skip
    """Nothing of Python's import system or of this package stands before it."""
    (tmp_path / "fails_at_import.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fails_at_import", raising=False)
    config.registry.application.add_folder(tmp_path)
    queue.enqueue({}, "fails_at_import.work", retry_config=ONCE)
    await run_until_idle(config)
    (dead_letter,) = documents(client, config.failures_queue)
    assert dead_letter["traceback"].splitlines()[1].startswith(f'  File "{tmp_path}/fails_at_import.py", line ')
    assert "importlib" not in dead_letter["traceback"]


@pytest.mark.parametrize("kept", [True, False])
async def test_a_failure_callback_gets_the_traceback_that_dead_letter_and_record_keep(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox, log: LineLogger, kept: bool
) -> None:
    """Where tracebacks are switched off, nothing keeps one, and the error is told still."""
    config = make_config(logger=log, tracebacks=kept)
    queue = QueueManager(config)
    queue.enqueue({}, charge, operation_id="op", on_failure=inbox.put, retry_config=ONCE)
    await run_until_idle(config)
    (dead_letter,) = documents(client, config.failures_queue)
    data = await inbox.next()
    record = record_of(queue, "op")
    assert data["traceback"] == record.traceback == dead_letter.get("traceback")
    assert ("in look_up\n" in (data["traceback"] or "")) is ("traceback" in dead_letter) is kept
    assert (dead_letter["failure_reason"], record.error) == ("'custmer'", "'custmer'")
    assert ["exc_info" in line for line in log.of("operation failed")] == [kept]


async def test_a_failed_failure_callback_gets_the_operation_s_traceback_again_when_it_is_retried(
    config: QueueConfig, queue: QueueManager, client: redis.Redis
) -> None:
    """Its dead letter tells where the callback failed, which is something else."""
    seen: list[str] = []

    def told(data: Any) -> None:
        seen.append(data["traceback"])
        if len(seen) <= 4:  # the tries of one attempt
            raise OSError("the mail server is down")

    queue.enqueue({}, charge, on_failure=told, retry_config=ONCE)
    await run_until_idle(config)
    (dead_letter,) = documents(client, config.system_errors_queue)
    assert "in told\n" in dead_letter["traceback"]
    assert queue.retry_dead_letters(source="system_errors") == 1
    await run_until_idle(config)
    assert len(set(seen)) == 1
    assert "in look_up\n" in seen[0]
    assert documents(client, config.system_errors_queue) == []


async def test_a_sync_processor_that_raises_stop_iteration_tells_where(
    config: QueueConfig, queue: QueueManager, client: redis.Redis
) -> None:
    queue.enqueue({}, end_without_value, retry_config=ONCE)
    await run_until_idle(config)
    (dead_letter,) = documents(client, config.failures_queue)
    assert "in end_without_value\n    raise StopIteration\n" in dead_letter["traceback"]


async def test_passwords_in_urls_reach_no_dead_letter_record_or_line(
    make_config: MakeConfig, client: redis.Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(logger=logging.getLogger("test.of.tracebacks"))
    queue = QueueManager(config)
    queue.enqueue({}, connect, operation_id="failed", retry_config=ONCE)
    queue.enqueue({}, connect, operation_id="retried")
    with caplog.at_level(logging.DEBUG):
        await run_until_idle(config)
    stored: list[Any] = [*client.lrange(config.failures_queue, 0, -1)]
    stored += [client.get(config.keys.operation(name)) for name in ("failed", "retried")]
    assert all(b"ada:***@db.internal" in value for value in stored)
    assert not [value for value in stored if SECRET.encode() in value]
    assert "ada:***@db.internal" in caplog.text
    told = [str(record.__dict__) + str(record.exc_info and record.exc_info[1]) for record in caplog.records]
    assert not [text for text in told if SECRET in text]
    assert SECRET not in caplog.text


async def test_dead_letters_and_records_without_a_traceback_stay_readable(
    config: QueueConfig, queue: QueueManager, client: redis.Redis
) -> None:
    """As older versions wrote them, and as a foreign program may write one of another type."""
    old = {"operation_id": "a", "processor": "p", "failure_reason": "boom", "error_type": "E", "queue": "normal:p"}
    client.lpush(config.failures_queue, json.dumps(old), json.dumps({**old, "traceback": 5}))
    assert [dead_letter.traceback for dead_letter in queue.list_dead_letters().letters] == ["5", ""]
    client.set(config.keys.operation("a"), b'failed\t\t1\tnormal:p\t\t1\t0\t0\tw\n{"error":"boom","error_type":"E"}')
    record = record_of(queue, "a")
    assert (record.error, record.traceback) == ("boom", None)


async def test_the_traceback_of_a_dead_letter_has_a_bound(
    config: QueueConfig, queue: QueueManager, client: redis.Redis
) -> None:
    def deep(n: int) -> Any:
        return deep(n + 1) if n < 200 else look_up({})

    def work(entity: object) -> None:
        raise ExceptionGroup("all", [ValueError("x" * 3000) for _ in range(1000)]) from ValueError(deep(0))

    queue.enqueue({}, work, retry_config=ONCE)
    await run_until_idle(config)
    (dead_letter,) = documents(client, config.failures_queue)
    assert 0 < len(dead_letter["traceback"].encode()) <= MOST_BYTES


@pytest.mark.parametrize(
    "work_timeout, own, total, expected",
    [
        (0.2, None, None, "the attempt timed out after 0.2 s: work_timeout of the worker"),
        (30.0, 0.2, None, "the attempt timed out after 0.2 s: timeout of the operation"),
        (30.0, None, 0.2, "the attempt timed out after 0.2 s: what was left of the total timeout of 0.2 s"),
        (
            0.2, 9.0, None,
            "the attempt timed out after 0.2 s: work_timeout of the worker, below the operation's own timeout of 9 s",
        ),
    ],
)  # fmt: skip
async def test_a_timeout_names_the_limit_that_it_hit(
    config: QueueConfig, queue: QueueManager, work_timeout: float, own: float | None, total: float | None,
    expected: str,
) -> None:  # fmt: skip
    retry = QueueRetryConfig(max_attempts=1, timeout=total)
    queue.enqueue({}, hang, operation_id="op", timeout=own, retry_config=retry)
    await run_until_idle(QueueWorker(config, work_timeout=work_timeout))
    record = record_of(queue, "op")
    assert record.error_type == "TimeoutError"
    assert record.error == expected


async def test_the_default_of_work_timeout_hides_no_timeout_of_an_operation(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    """A number that is given does, and the log says so."""
    limits: list[float] = []

    async def work(entity: object) -> None:
        task = asyncio.current_task()
        (slot,) = [slot for slot in slots() if slot.task is task]
        limits.append(slot.deadline - time.monotonic())

    def slots() -> list[Any]:
        assert worker._engine is not None
        return worker._engine.executor.slots

    for worker in (QueueWorker(config), QueueWorker(config, work_timeout=30.0)):
        queue.enqueue({}, work, timeout=120)
        queue.enqueue({}, work)
        await run_until_idle(worker)
    assert [round(limit, -1) for limit in limits] == [120, 30, 30, 30]
    log: Any = config.logger
    (line,) = log.of("an operation's timeout is longer than the work_timeout of this worker, which applies")
    assert (line["timeout_s"], line["work_timeout_s"]) == (120, 30)


async def test_a_worker_warns_at_its_start_of_allowed_modules_that_are_not_there(
    make_config: MakeConfig, log: LineLogger
) -> None:
    """Once, and not of a package, a module or a folder that is there."""
    names = ["no_such_shop.jobs", "tests.no_such_module", "tests", "tests.flow", "tests.flow.marked"]
    async with running(QueueWorker(make_config(logger=log, allowed_modules=names))):
        pass
    told = log.of("allowed_modules names a module that cannot be found")
    assert [line["module"] for line in told] == names[:2]


async def test_run_until_idle_raises_what_the_processor_raised(config: QueueConfig, queue: QueueManager) -> None:
    error = LookupError("the very one")

    def work(entity: object) -> None:
        raise error

    queue.enqueue({}, work)
    with pytest.raises(LookupError) as caught:
        await run_until_idle(config, raise_errors=True)
    assert caught.value is error
    queue.enqueue({}, work)
    await run_until_idle(config)


async def test_run_until_idle_raises_nothing_that_a_retry_has_mended(config: QueueConfig, queue: QueueManager) -> None:
    tried: list[object] = []

    def work(entity: object) -> None:
        tried.append(entity)
        if len(tried) == 1:
            raise ValueError("the first time")

    queue.enqueue({}, work)
    await run_until_idle(config, delayed="skip", raise_errors=True)
    assert len(tried) == 2


async def test_run_until_idle_raises_what_a_callback_raised(config: QueueConfig, queue: QueueManager) -> None:
    def work(entity: object) -> None:
        """Succeed."""

    def told(data: Any) -> None:
        look_up(data)

    queue.enqueue({}, work, on_success=told)
    with pytest.raises(KeyError, match="custmer"):
        await run_until_idle(config, raise_errors=True)
