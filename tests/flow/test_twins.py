"""The async twins of the manager: what the sync methods do, on any event loop, and blocking none."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections import Counter
from typing import Any

import pytest
import redis

from queue_system import CircuitOpenError, InvalidInputError, QueueManager, ServerUnreachableError, WaitTimeoutError
from queue_system.broker.shard import BREAKER
from queue_system.resilience import CircuitBreaker
from tests.kit.clocks import ManualClock
from tests.kit.configs import MakeConfig
from tests.kit.operations import work
from tests.kit.servers import StartServer, frozen
from tests.kit.waiting import eventually, wait_until

TWINS = {
    name: "await_for" if name == "wait_for" else f"a{name}"
    for name, method in vars(QueueManager).items()
    if not name.startswith(("_", "a")) and inspect.isfunction(method)
}


@pytest.mark.parametrize("name, twin", TWINS.items())
def test_every_call_has_a_twin_with_the_same_arguments_and_answer(name: str, twin: str) -> None:
    sync, awaited = getattr(QueueManager, name), getattr(QueueManager, twin)
    assert not inspect.iscoroutinefunction(sync)
    assert inspect.iscoroutinefunction(awaited)
    assert inspect.signature(sync) == inspect.signature(awaited)
    assert "Flow" not in str(inspect.signature(sync))


def test_what_enqueue_takes_is_told_in_its_signature_its_help_and_its_refusals(queue: QueueManager) -> None:
    """Each argument is described, and a wrong call is refused by the name of the method and of the argument."""
    names = [name for name in inspect.signature(QueueManager.enqueue).parameters if name != "self"]
    described = inspect.getdoc(QueueManager.enqueue) or ""
    assert [name for name in names if f"\n    {name}: " not in described] == []
    call: Any = queue.enqueue
    with pytest.raises(TypeError, match=r"enqueue: .*'retries'"):
        call({}, work, retries=3)
    with pytest.raises(TypeError, match=r"enqueue: .*'processor'"):
        call({})
    with pytest.raises(InvalidInputError, match="entity: enqueue_batch has no such argument; use one of queue_name, "):
        queue.enqueue_batch([{}], work, entity={})


async def test_twins_do_what_the_methods_do(queue: QueueManager) -> None:
    assert (await queue.aenqueue({"n": 1}, work, operation_id="one"))["status"] == "queued"
    assert queue.enqueue({"n": 1}, work, operation_id="one")["status"] == "duplicate"
    answers = await queue.aenqueue_batch([{"n": n} for n in range(2500)], work, priority="low")
    assert len({answer["operation_id"] for answer in answers}) == 2500
    status = await queue.aget_queue_status()
    assert {**status, "status_time": 0} == {**queue.get_queue_status(), "status_time": 0}
    assert (await queue.aget_operation("one")) == queue.get_operation("one")
    assert await queue.apurge_queue("work", "low") == 2500
    with pytest.raises(InvalidInputError, match="priority"):
        await queue.aenqueue({}, work, priority="urgent")


async def test_many_calls_at_once_are_all_answered(queue: QueueManager, client: redis.Redis) -> None:
    answers = await asyncio.gather(*(queue.aenqueue({"n": n}, work, operation_id=f"id-{n}") for n in range(300)))
    assert [answer["operation_id"] for answer in answers] == [f"id-{n}" for n in range(300)]
    assert queue.get_queue_status()["total_items"] == 300
    assert len(client.client_list()) < 50


async def test_a_frozen_server_blocks_no_event_loop(make_config: MakeConfig, start_server: StartServer) -> None:
    own = start_server()
    queue = QueueManager(make_config(redis_url=own.url, connection_timeout=1.0, max_connection_retries=0))
    await queue.aenqueue({}, work)
    with frozen(own):
        call = asyncio.create_task(queue.aenqueue({}, work))
        gap, last = 0.0, time.monotonic()
        while not call.done():
            await asyncio.sleep(0.005)
            gap, last = max(gap, time.monotonic() - last), time.monotonic()
        assert gap < 0.5  # a call that blocked the loop would hold it for the whole connection_timeout
        with pytest.raises(ServerUnreachableError):
            await call
    assert (await queue.aenqueue({}, work))["status"] == "queued"


async def test_calls_that_wait_for_a_connection_are_rejected_as_soon_as_others_open_the_circuit(
    make_config: MakeConfig, start_server: StartServer
) -> None:
    """Only those that have a connection by then still learn for themselves that the server stands still."""
    own = start_server()
    config = make_config(redis_url=own.url, connection_timeout=0.2, max_connection_retries=2)
    queue = QueueManager(config)
    await queue.aenqueue({}, work)
    with frozen(own):
        ends = await asyncio.gather(*(queue.aenqueue({}, work) for _ in range(320)), return_exceptions=True)
    kinds = Counter(map(type, ends))
    assert set(kinds) == {CircuitOpenError, ServerUnreachableError}
    assert kinds[ServerUnreachableError] < 64


async def test_a_blocking_call_in_an_event_loop_is_told_its_twin_once(
    queue: QueueManager, make_config: MakeConfig
) -> None:
    log = queue.config.logger
    for _ in range(2):
        queue.enqueue({}, work)
        queue.get_queue_status()
        with contextlib.suppress(WaitTimeoutError):
            queue.wait_for(queue.enqueue({}, work)["operation_id"], timeout=0.01)
    lines = log.of("a blocking call holds up the event loop: await its async twin")
    assert [line["twin"] for line in lines] == ["aenqueue", "aget_queue_status", "await_for"]


async def test_a_blocking_call_outside_the_event_loop_is_told_nothing(queue: QueueManager) -> None:
    await asyncio.to_thread(queue.enqueue, {}, work)
    assert queue.config.logger.of("a blocking call holds up the event loop: await its async twin") == []


async def test_an_outage_opens_the_circuit_and_a_restart_heals(
    make_config: MakeConfig, start_server: StartServer
) -> None:
    own, clock = start_server(appendonly="yes"), ManualClock()
    config = make_config(redis_url=own.url, max_connection_retries=1)
    config.shard.breaker = CircuitBreaker("outage", clock=clock, **BREAKER)
    queue = QueueManager(config)
    await queue.aenqueue({}, work)
    own.kill()
    for _ in range(5):
        with pytest.raises(ServerUnreachableError):
            await queue.aenqueue({}, work)
    with pytest.raises(CircuitOpenError):
        await queue.aenqueue({}, work)
    with pytest.raises(CircuitOpenError):
        queue.enqueue({}, work)
    assert config.circuit_state == "open"
    own.start()
    with pytest.raises(CircuitOpenError):
        await queue.aenqueue({}, work)
    clock.advance(config.breaker.recovery_timeout)
    assert (await queue.aenqueue({}, work))["status"] == "queued"
    assert config.circuit_state == "closed"
    assert queue.enqueue({}, work)["status"] == "queued"


async def test_a_lost_connection_is_replaced_and_nothing_is_doubled(queue: QueueManager, client: redis.Redis) -> None:
    await asyncio.gather(*(queue.aenqueue({}, work) for _ in range(5)))
    client.client_kill_filter(_type="normal", skipme=True)
    answers = await asyncio.gather(*(queue.aenqueue({}, work) for _ in range(5)))
    assert [answer["status"] for answer in answers] == ["queued"] * 5
    assert queue.get_queue_status()["total_items"] == 10


async def test_a_cancelled_call_leaves_a_connection_that_nobody_misreads(queue: QueueManager) -> None:
    for n in range(50):
        call = asyncio.create_task(queue.aenqueue({"n": n}, work, operation_id=f"id-{n}"))
        await asyncio.sleep(0)
        if n % 2:
            await asyncio.sleep(0.0005)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        record = await queue.aget_operation(f"id-{n}")
        assert record is None or record.operation_id == f"id-{n}"
        assert (await queue.aget_queue_status())["status_time"] > 0


def test_each_event_loop_has_its_own_connections_and_closes_them_at_its_end(
    make_config: MakeConfig, start_server: StartServer
) -> None:
    own = start_server()
    queue = QueueManager(make_config(redis_url=own.url))
    with own.client() as client:
        before = len(client.client_list())

        async def burst() -> None:
            await asyncio.gather(*(queue.aenqueue({}, work) for _ in range(10)))
            assert len(client.client_list()) > before

        for _ in range(3):
            asyncio.run(burst())
            wait_until(lambda: len(client.client_list()) <= before, "its connections are closed")


async def test_aclose_closes_the_idle_connections_and_the_next_call_opens_one(
    make_config: MakeConfig, start_server: StartServer
) -> None:
    own = start_server()
    queue = QueueManager(make_config(redis_url=own.url))
    with own.client() as client:
        before = len(client.client_list())
        await asyncio.gather(*(queue.aenqueue({}, work) for _ in range(10)))
        await queue.aclose()
        await eventually(lambda: len(client.client_list()) == before, "the idle connections are closed")
        assert (await queue.aenqueue({}, work))["status"] == "queued"


async def test_durability_is_waited_for(make_config: MakeConfig, start_server: StartServer) -> None:
    own = start_server(appendonly="yes", appendfsync="always")
    queue = QueueManager(make_config(redis_url=own.url, connection_timeout=1.0))
    assert (await queue.aenqueue({}, work, durability="fsync"))["status"] == "queued"
    with pytest.raises(InvalidInputError, match="replicated"):
        await queue.aenqueue({}, work, durability="replicated")
