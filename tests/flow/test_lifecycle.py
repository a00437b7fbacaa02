"""Start and stop: nothing is lost, nothing is left behind, and each may come at any time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.flow.hostile import block, hang
from tests.kit.configs import MakeConfig
from tests.kit.inbox import Inbox
from tests.kit.servers import StartServer, frozen
from tests.kit.strange_servers import SilentServer, serving
from tests.kit.waiting import eventually
from tests.kit.workers import running

_of_others: set[threading.Thread] = set()


def our_threads() -> list[threading.Thread]:
    """The threads that this test's workers have."""
    return [t for t in threading.enumerate() if t.name.startswith("queue-system") and t not in _of_others]


@pytest.fixture(autouse=True)
def _tell_apart() -> None:
    """Threads that other tests gave up may still run."""
    _of_others.clear()
    _of_others.update(our_threads())


def our_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("queue-system")]


def connections(client: redis.Redis) -> int:
    listed: Any = client.client_list()
    return len(listed)


async def test_start_and_stop_are_idempotent_and_a_worker_starts_again(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    worker = QueueWorker(config)
    await worker.stop()
    for n in range(3):
        states = [worker.running]
        await worker.start()
        await worker.start()
        states.append(worker.running)
        assert len(our_tasks()) == worker.max_workers + 1
        queue.enqueue({"n": n}, inbox.put)
        assert await inbox.next() == {"n": n}
        await asyncio.gather(worker.stop(), worker.stop())
        await worker.stop()
        assert [*states, worker.running] == [False, True, False]
        assert our_tasks() == []
    assert config.get_metrics()["processed"] == 3


async def test_many_lives_leak_no_threads_tasks_or_connections(
    start_server: StartServer, make_config: MakeConfig, inbox: Inbox
) -> None:
    server = start_server()
    config = make_config(redis_url=server.url)
    queue = QueueManager(config)
    with server.client() as client:
        counts: list[tuple[int, int]] = []
        for n in range(12):
            async with running(QueueWorker(config, max_workers=3)):
                queue.enqueue({"n": n}, inbox.put)
                queue.enqueue({"n": n}, lambda entity: None, on_success=inbox.put)
                await inbox.take(2)
            await eventually(lambda: not our_threads(), "all threads end")
            assert our_tasks() == []
            gc.collect()
            await asyncio.sleep(0)  # sockets are closed with the next turn of the loop
            counts.append((threading.active_count(), connections(client)))
    assert max(count for _, count in counts) <= 5, "this test's own, the manager's, and one for each of three services"
    assert max(count for count, _ in counts[6:]) <= max(count for count, _ in counts[:6]) + 1


async def test_stopping_waits_for_what_runs(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    release = asyncio.Event()

    async def work(entity: Any) -> str:
        inbox.put("started")
        await release.wait()
        return "done"

    queue.enqueue({}, work)
    worker = QueueWorker(config)
    await worker.start()
    await inbox.next()
    stop = asyncio.create_task(worker.stop())
    queue.enqueue({"late": True}, inbox.put)
    await asyncio.sleep(0)
    assert not stop.done()
    release.set()
    await asyncio.wait_for(stop, 5)
    assert config.get_metrics()["processed"] == 1
    assert queue.get_queue_status()["total_items"] == 1


async def test_what_does_not_end_in_time_goes_back_and_spends_no_attempt(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, is_async: bool
) -> None:
    queue.enqueue({}, hang if is_async else block, queue_name="jobs", timeout=60)
    before: Any = client.lindex(config.get_queue_key("jobs"), 0)
    worker = QueueWorker(config, work_timeout=60)
    await worker.start()
    await eventually(lambda: worker.snapshot().busy, "it runs")
    worker.work_timeout = 0.05  # how long stop waits; the running attempt keeps its own limit
    await asyncio.wait_for(worker.stop(), 8)
    assert client.lrange(config.get_queue_key("jobs"), 0, -1) == [before]
    assert config.get_metrics()["retried"] == config.get_metrics()["failed"] == 0


@pytest.mark.timeout(20)
async def test_stopping_while_starting_leaves_nothing_running(make_config: MakeConfig) -> None:
    """The server accepts and never answers, so that start takes its time."""
    with serving(SilentServer) as port:
        worker = QueueWorker(make_config(redis_url=f"redis://127.0.0.1:{port}", connection_timeout=0.1))
        start = asyncio.create_task(worker.start())
        await eventually(lambda: worker.running, "start is under way")
        await worker.stop()
        await asyncio.gather(start, return_exceptions=True)
        await asyncio.sleep(0)
        left = our_tasks()
        for task in left:
            task.cancel()
        assert not worker.running
        assert left == []
        await eventually(lambda: not our_threads(), "all threads end")


@pytest.mark.timeout(20)
async def test_a_cancelled_start_can_be_done_again(make_config: MakeConfig) -> None:
    """After a start that was given up the worker does not claim to run."""
    with serving(SilentServer) as port:
        worker = QueueWorker(make_config(redis_url=f"redis://127.0.0.1:{port}", connection_timeout=0.2))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.start(), 0.05)
        assert not worker.running
        assert our_tasks() == []


@pytest.mark.timeout(20)
async def test_stopping_without_a_server_is_bounded(
    start_server: StartServer, make_config: MakeConfig, inbox: Inbox
) -> None:
    server = start_server()
    config = make_config(redis_url=server.url, connection_timeout=0.3)
    QueueManager(config).enqueue({}, inbox.put)
    worker = QueueWorker(config, work_timeout=1.0)
    await worker.start()
    await inbox.next()
    server.kill()
    await asyncio.wait_for(worker.stop(), 10)
    assert not worker.running


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("way", ["started", "stopped"])
def test_a_worker_whose_event_loop_was_closed_works_in_another_one(
    make_config: MakeConfig, client: redis.Redis, kind: str, way: str
) -> None:
    """What it held goes back at once; nobody else has to wait for the end of its lease."""
    config = make_config()
    queue, worker, ran = QueueManager(config), QueueWorker(config, max_workers=1), []

    async def note(entity: dict[str, Any]) -> None:
        ran.append(entity["n"])
        if len(ran) == 1:
            await asyncio.sleep(60)

    async def hold_one() -> None:
        await worker.start()
        queue.enqueue({"n": 1}, note)
        await eventually(lambda: ran)

    async def go_on() -> None:
        await (worker.start() if way == "started" else worker.stop())
        assert worker.running is (way == "started")
        if way == "stopped":
            await worker.start()
        await eventually(lambda: ran == [1, 1])
        await worker.stop()

    for work in (hold_one, go_on):
        loop: asyncio.AbstractEventLoop = pytest.importorskip(kind).new_event_loop()
        loop.run_until_complete(work())
        loop.close()
        assert not worker.running
        gc.collect()
    assert client.hlen(config.keys.workers) == 0


@pytest.mark.parametrize("stops", [True, False], ids=["stop", "cancelled"])
def test_a_frozen_server_holds_up_the_end_of_a_worker_for_five_seconds_at_most(
    start_server: StartServer, make_config: MakeConfig, stops: bool
) -> None:
    """With an operation that has to be cancelled, and settlements that cannot be sent."""
    server = start_server()
    config = make_config(redis_url=server.url)
    with contextlib.ExitStack() as at_end:

        async def main() -> float:
            QueueManager(config).enqueue({}, hang)
            worker = QueueWorker(config, max_workers=2)
            await worker.start()
            await eventually(lambda: worker.snapshot().busy, "it runs")
            at_end.enter_context(frozen(server))
            frozen_at = time.monotonic()
            if stops:
                await worker.stop(grace=0.5)
            return frozen_at

        frozen_at = asyncio.run(main())
        assert time.monotonic() - frozen_at <= 5.0
