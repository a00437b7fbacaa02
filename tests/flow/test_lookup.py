"""Looking up an operation and waiting for it, through a real server and a real worker."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import redis

from queue_system import (
    OperationRecord,
    QueueConfig,
    QueueManager,
    QueueRetryConfig,
    QueueWorker,
    UndecodableItemError,
    UnknownOperationError,
    WaitTimeoutError,
)
from tests.kit.configs import MakeConfig
from tests.kit.contents import record_of
from tests.kit.logs import LineLogger
from tests.kit.waiting import eventually
from tests.kit.workers import running

LOOKS_AGAIN_S = 5.0
"""After how long a waiter looks by itself, where `connection_timeout` does not end its reads before."""
BLOCKING = {"connection_timeout": 60.0}

gates: dict[str, asyncio.Event] = {}


async def pass_gate(entity: dict[str, Any]) -> Any:
    """Wait until the test opens the gate that the entity names."""
    await gates[entity["gate"]].wait()
    return {"passed": entity["gate"]}


async def echo(entity: Any) -> Any:
    return entity


async def fail(entity: Any) -> None:
    raise ValueError("it cannot be done")


@pytest.fixture
def gate() -> asyncio.Event:
    """The gate named "g"."""
    gates["g"] = asyncio.Event()
    return gates["g"]


async def test_a_record_follows_its_operation_from_queued_over_running_to_succeeded(
    config: QueueConfig, queue: QueueManager, gate: asyncio.Event
) -> None:
    operation_id = queue.enqueue({"gate": "g"}, pass_gate, priority="high")["operation_id"]
    queued = record_of(queue, operation_id)
    assert (queued.status, queued.queue, queued.priority, queued.attempts) == ("queued", "pass_gate", "high", 0)
    assert queued.enqueued_at == pytest.approx(time.time(), abs=5)
    assert not queued.finished
    async with running(QueueWorker(config)):
        await eventually(lambda: record_of(queue, operation_id).status == "running", "it is noted as running")
        gate.set()
        done = await queue.await_for(operation_id, timeout=5)
    assert (done.status, done.result, done.attempts, done.error) == ("succeeded", {"passed": "g"}, 1, None)
    assert done.finished
    assert None not in (done.enqueued_at, done.started_at, done.finished_at, done.worker)
    assert queue.get_operation(operation_id) == done


async def test_a_delayed_operation_is_queued_from_when_it_is_due(queue: QueueManager) -> None:
    operation_id = queue.enqueue({}, echo, delay=0.05)["operation_id"]
    await eventually(lambda: record_of(queue, operation_id).status == "queued", "the operation is due")


async def test_a_failed_operation_keeps_its_error(config: QueueConfig, queue: QueueManager) -> None:
    operation_id = queue.enqueue({}, fail, retry_config=QueueRetryConfig(max_attempts=1))["operation_id"]
    async with running(QueueWorker(config)):
        record = await queue.await_for(operation_id, timeout=5)
    assert (record.status, record.error, record.error_type) == ("failed", "it cannot be done", "ValueError")


async def test_every_waiter_is_woken(make_config: MakeConfig, gate: asyncio.Event) -> None:
    config = make_config(**BLOCKING)
    queue = QueueManager(config)
    operation_id = queue.enqueue({"gate": "g"}, pass_gate)["operation_id"]
    started = time.monotonic()
    async with running(QueueWorker(config)):
        waiters = [asyncio.create_task(queue.await_for(operation_id, timeout=30)) for _ in range(20)]
        waiters += [asyncio.create_task(asyncio.to_thread(queue.wait_for, operation_id, 30)) for _ in range(3)]
        await eventually(lambda: record_of(queue, operation_id).status == "running", "it is noted as running")
        gate.set()
        records = await asyncio.gather(*waiters)
        assert time.monotonic() - started < LOOKS_AGAIN_S - 1, "they looked by themselves"
    assert [record.status for record in records] == ["succeeded"] * 23


async def test_a_waiter_does_not_poll(make_config: MakeConfig, client: redis.Redis, gate: asyncio.Event) -> None:
    """While nothing changes and no worker runs, it sends nothing at all."""
    queue = QueueManager(make_config(**BLOCKING))
    operation_id = queue.enqueue({"gate": "g"}, pass_gate)["operation_id"]
    waiter = asyncio.create_task(queue.await_for(operation_id, timeout=30))
    await eventually(lambda: client.info("clients")["blocked_clients"], "the waiter blocks")
    before = _calls(client, "xread"), _calls(client, "evalsha")
    await asyncio.sleep(1.0)
    assert (_calls(client, "xread"), _calls(client, "evalsha")) == before
    assert not waiter.done()
    queue.purge_queue("pass_gate")
    with pytest.raises(UnknownOperationError):
        await waiter


async def test_a_waiter_is_woken_by_few_reads(
    make_config: MakeConfig, client: redis.Redis, gate: asyncio.Event
) -> None:
    config = make_config(**BLOCKING)
    queue = QueueManager(config)
    operation_id = queue.enqueue({"gate": "g"}, pass_gate)["operation_id"]
    async with running(QueueWorker(config)):
        waiter = asyncio.create_task(queue.await_for(operation_id, timeout=30))
        started = time.monotonic()
        await eventually(lambda: record_of(queue, operation_id).status == "running", "it is noted as running")
        before = _calls(client, "xread")
        gate.set()
        await waiter
        assert time.monotonic() - started < LOOKS_AGAIN_S - 1, "it looked by itself"
        assert _calls(client, "xread") - before <= 2  # the one that told of the start, and the one of the end


def _calls(client: redis.Redis, command: str) -> int:
    stats: Any = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_waiting_ends_with_an_error_at_its_time_limit_and_the_operation_goes_on(
    config: QueueConfig, queue: QueueManager, gate: asyncio.Event, log: LineLogger
) -> None:
    operation_id = queue.enqueue({"gate": "g"}, pass_gate)["operation_id"]
    async with running(QueueWorker(config)):
        with pytest.raises(WaitTimeoutError, match=operation_id):
            await queue.await_for(operation_id, timeout=0.2)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(queue.wait_for, operation_id, 0)
        gate.set()
        assert (await queue.await_for(operation_id)).status == "succeeded"
    assert "call failed" not in str(log.lines)


def test_nothing_known_is_none_to_a_look_and_an_error_to_a_wait(queue: QueueManager) -> None:
    assert queue.get_operation("never-heard-of") is None
    with pytest.raises(UnknownOperationError, match="never-heard-of"):
        queue.wait_for("never-heard-of", timeout=5)
    with pytest.raises(LookupError):
        queue.wait_for("never-heard-of")


async def test_a_purge_ends_the_wait(make_config: MakeConfig, client: redis.Redis, prefix: str) -> None:
    queue = QueueManager(make_config(**BLOCKING))
    operation_id = queue.enqueue({}, echo)["operation_id"]
    started = time.monotonic()
    waiter = asyncio.create_task(queue.await_for(operation_id, timeout=30))
    await eventually(lambda: client.zcard(f"{prefix}waiters"), "the wait is noted")
    assert await queue.apurge_queue("echo") == 1
    with pytest.raises(UnknownOperationError):
        await waiter
    assert time.monotonic() - started < LOOKS_AGAIN_S - 1, "it looked by itself"


async def test_a_record_is_kept_as_long_as_the_operation_asks_for(
    config: QueueConfig, queue: QueueManager, client: redis.Redis
) -> None:
    long, short, none, usual = (
        queue.enqueue({"n": 1}, echo, result_ttl=ttl)["operation_id"] for ttl in (5000, 0.2, 0, None)
    )
    batch = queue.enqueue_batch([{}], echo, result_ttl=7000)[0]["operation_id"]
    async with running(QueueWorker(config)):
        for operation_id in (long, none, usual, batch):
            await queue.await_for(operation_id, timeout=5)
        await eventually(lambda: queue.get_operation(short) is None, "the record expires")

    def ttl(operation_id: str) -> int:
        return int(client.ttl(config.keys.operation(operation_id)))

    assert 4900 < ttl(long) <= 5000
    assert 290 < ttl(usual) <= 300
    assert 6900 < ttl(batch) <= 7000
    kept = record_of(queue, none)
    assert (kept.status, kept.result) == ("succeeded", None)  # that it ended is known for a minute, its result is not


@pytest.mark.parametrize(
    "record", [b"", b"x", b"queued\t\tx\tnormal:a\t", b"succeeded\t\t1\tnormal:a\t\t1\t1\t1\tw\n{", b"\xff"]
)
def test_a_foreign_value_in_the_place_of_a_record_is_a_typed_error(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, record: bytes
) -> None:
    client.set(config.keys.operation("mine"), record or b"\0")
    with pytest.raises(UndecodableItemError):
        queue.get_operation("mine")
    client.delete(config.keys.operation("mine"))
    client.lpush(config.keys.operation("mine"), record)
    assert queue.get_operation("mine") is None


async def test_an_encrypted_result_is_read_as_it_was(make_config: MakeConfig) -> None:
    class Mirror:
        def encrypt(self, plain: bytes) -> bytes:
            return plain[::-1]

        def decrypt(self, encrypted: bytes) -> bytes:
            return encrypted[::-1]

    config = make_config(encryption=Mirror())
    queue = QueueManager(config)
    async with running(QueueWorker(config)):
        record = await queue.await_for((await queue.aenqueue({"secret": 1}, echo))["operation_id"], timeout=5)
    assert record.result == {"secret": 1}


def test_a_record_is_public_and_frozen() -> None:
    record = OperationRecord(operation_id="a", status="queued", queue="q", priority="low", attempts=0, updated_at=1.0)
    with pytest.raises(AttributeError):
        record.status = "succeeded"  # type: ignore[misc]
