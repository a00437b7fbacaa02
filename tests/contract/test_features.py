"""What the specification's prose states of the system as a whole, seen on a working one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.contract.support import counted
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import StartServer
from tests.kit.waiting import eventually
from tests.kit.workers import running

ONCE = QueueRetryConfig(max_attempts=1)
APPLICATION = """\
from pathlib import Path

def work(entity):
    if entity.get("broken"):
        raise ValueError("no luck")
    return {"doubled": 2 * entity["n"]}

async def work_async(entity):
    return work(entity)

def done(data):
    Path(data["entity"]["note"]).write_text(repr(data["result"]))

async def failed(data):
    Path(data["entity"]["note"]).write_text(data["error"])
"""


async def test_high_runs_before_normal_before_low_and_each_in_order(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, name="note")
    for n in range(3):
        for priority in ("low", "normal", "high"):
            queue.enqueue([priority, n], "note", priority=priority)  # type: ignore[arg-type]
    async with running(QueueWorker(config, max_workers=1)):
        seen = await inbox.take(9)
    assert seen == [[priority, n] for priority in ("high", "normal", "low") for n in range(3)]


async def test_several_operations_run_in_parallel(config: QueueConfig, queue: QueueManager, inbox: Inbox) -> None:
    """Async ones in the event loop and sync ones in threads: none could end without the other."""
    meeting = threading.Barrier(2)

    def meets(entity: Any) -> None:
        meeting.wait(10)
        inbox.put("sync")

    first, second = asyncio.Event(), asyncio.Event()

    async def meets_async(entity: Any) -> None:
        mine, other = (first, second) if entity["n"] else (second, first)
        mine.set()
        await other.wait()
        inbox.put("async")

    queue.enqueue_batch([{"n": 0}, {"n": 1}], meets)
    queue.enqueue_batch([{"n": 0}, {"n": 1}], meets_async)
    async with running(QueueWorker(config, max_workers=4)):
        assert sorted(await inbox.take(4)) == ["async", "async", "sync", "sync"]


@pytest.mark.parametrize("processor", ["work", "work_async"])
@pytest.mark.parametrize(
    "extra, expected", [({}, "{'doubled': 42}"), ({"broken": True}, "no luck")], ids=["success", "failure"]
)
async def test_processors_and_callbacks_are_imported_by_name(
    import_source: Callable[[str], ModuleType],
    config: QueueConfig,
    queue: QueueManager,
    processor: str,
    extra: dict[str, Any],
    expected: str,
) -> None:
    """Sync and async ones, of an application that this configuration has never seen."""
    application = import_source(APPLICATION)
    note, name = Path(f"{application.__file__}.note"), application.__name__
    queue.enqueue(
        {"n": 21, "note": str(note), **extra},
        f"{name}.{processor}",
        retry_config=ONCE,
        on_success=f"{name}.done",
        on_failure=f"{name}.failed",
    )
    async with running(QueueWorker(config)):
        await eventually(lambda: written(note), "the callback ran")
    assert written(note) == expected


def written(path: Path) -> str:
    """The content of a file, empty while there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


async def test_an_operation_that_fails_for_good_goes_to_the_failures_with_the_reason(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, log: LineLogger
) -> None:
    def breaks(entity: Any) -> None:
        raise ValueError("no luck")

    answer = queue.enqueue({"n": 1}, breaks, retry_config=QueueRetryConfig.fixed(0, max_attempts=2))
    async with running(QueueWorker(config)):
        await eventually(lambda: counted(config, "failed"))
    (letter,) = documents(raw, config.failures_queue)
    assert letter.pop("failed_at") > 1e9
    assert letter | {
        "operation_id": answer["operation_id"], "entity": {"n": 1}, "attempts": 2, "queue": "normal:breaks",
        "failure_reason": "no luck", "error_type": "ValueError",
    } == letter  # fmt: skip
    assert queue.get_queue_status()[config.failures_queue] == 1
    assert [line.message for line in log.lines if line.level == "error"] == ["operation failed"]


@pytest.mark.parametrize(
    "item, kept",
    [
        ("no json at all", {"raw_base64": "bm8ganNvbiBhdCBhbGw="}),
        ('{"entity": {"n": 1}}', {"raw_base64": "eyJlbnRpdHkiOiB7Im4iOiAxfX0="}),
        ('{"processor": "gone", "entity": {"n": 1}}', {"processor": "gone", "entity": {"n": 1}}),
        ('{"processor": "system", "processor_module": "os", "entity": "id"}', {"processor_module": "os"}),
    ],
    ids=["undecodable", "no processor", "unknown processor", "forbidden module"],
)
async def test_what_cannot_be_processed_goes_once_to_the_system_errors(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, item: str, kept: dict[str, Any]
) -> None:
    """Any language may write the item: it is one LPUSH to a registered list."""
    key = config.get_queue_key("foreign")
    raw.sadd(config.get_registry_key(), key)
    raw.lpush(key, item)
    async with running(QueueWorker(config)):
        await eventually(lambda: raw.llen(config.system_errors_queue))
    (letter,) = documents(raw, config.system_errors_queue)
    assert letter | kept == letter
    assert letter["failure_reason"]
    assert letter["queue"] == "normal:foreign"
    assert queue.get_queue_status()["total_items"] == 0
    assert config.get_metrics()["system_errors"] == 1


async def test_a_failed_operation_is_retried_until_it_succeeds(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    calls = 0

    def recovers(entity: Any) -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ConnectionError
        return "at last"

    config.register_callback(inbox.put, name="note")
    queue.enqueue(
        {}, recovers, retry_config=QueueRetryConfig.custom([0, 0.01, 0]), on_success="note", on_failure="note"
    )
    async with running(QueueWorker(config)):
        assert (await inbox.next())["result"] == "at last"
    assert calls == 3


async def test_a_callback_that_keeps_failing_goes_to_the_system_errors_and_the_verdict_stands(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis
) -> None:
    def breaks(data: Any) -> None:
        raise ValueError("no luck")

    async def succeeds(entity: Any) -> None: ...

    queue.enqueue({}, succeeds, on_success=breaks)
    async with running(QueueWorker(config)):
        await eventually(lambda: raw.llen(config.system_errors_queue))
    (letter,) = documents(raw, config.system_errors_queue)
    assert letter["phase"] == "on_success"
    assert (counted(config, "processed"), counted(config, "failed")) == (1, 0)


async def test_items_that_a_foreign_client_pushes_are_noticed(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, name="note")
    queue.enqueue({"n": 0}, "note")
    async with running(QueueWorker(config)):
        assert await inbox.next() == {"n": 0}
        raw.lpush(config.get_queue_key("note"), '{"processor":"note","entity":{"n":1}}')
        assert await inbox.next() == {"n": 1}


def test_one_connection_serves_many_calls(start_server: StartServer) -> None:
    server = start_server()
    queue = QueueManager(config=QueueConfig(redis_url=server.url))
    with server.client() as bare:
        queue.enqueue({}, "app.handle")
        before: Any = bare.info("stats")
        for _ in range(50):
            queue.enqueue({}, "app.handle")
            queue.get_queue_status()
        after: Any = bare.info("stats")
    assert after["total_connections_received"] == before["total_connections_received"]
