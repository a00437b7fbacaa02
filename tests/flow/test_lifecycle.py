"""Start and stop: nothing is lost, nothing is left behind, and each may come at any time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import eventually, wait_until
from tests.kit.workers import running

SRC = Path(__file__).parents[2] / "src"


def is_running(worker: QueueWorker) -> bool:
    return worker.running


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


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""

    class Silent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(4096):
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


async def test_start_and_stop_are_idempotent(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    worker = QueueWorker(config)
    await worker.stop()
    assert not is_running(worker)
    await worker.start()
    await worker.start()
    assert is_running(worker)
    assert len(our_tasks()) == worker.max_workers + 1
    queue.enqueue({}, inbox.put)
    await inbox.next()
    await asyncio.gather(worker.stop(), worker.stop())
    await worker.stop()
    assert not worker.running
    assert our_tasks() == []


async def test_a_stopped_worker_leaves_no_trace_in_redis(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    queue.enqueue({}, inbox.put)
    async with running(QueueWorker(config)):
        await inbox.next()
    assert not client.exists(config.keys.workers)
    assert not list(client.scan_iter(match=f"{config.queue_prefix}inflight:*"))


async def test_a_worker_can_be_started_again(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    worker = QueueWorker(config, max_workers=2)
    for n in range(3):
        async with running(worker):
            queue.enqueue({"n": n}, inbox.put)
            assert await inbox.next() == {"n": n}
    assert config.get_metrics()["processed"] == 3


async def test_many_lives_leak_no_threads_tasks_or_connections(start_server: StartServer, inbox: Inbox) -> None:
    server = start_server()
    config = QueueConfig(redis_url=server.url, logger=LineLogger())
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
    config.transport.close()
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


@pytest.mark.parametrize("is_async", [True, False])
async def test_what_does_not_end_in_time_goes_back_and_spends_no_attempt(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox, is_async: bool
) -> None:
    release = threading.Event()

    def hang(entity: Any) -> None:
        inbox.put("started")
        release.wait(5)

    async def hang_async(entity: Any) -> None:
        inbox.put("started")
        await asyncio.Event().wait()

    queue.enqueue({}, hang_async if is_async else hang, queue_name="jobs", timeout=60)
    before: Any = client.lindex(config.get_queue_key("jobs"), 0)
    worker = QueueWorker(config, work_timeout=60)
    await worker.start()
    await inbox.next()
    worker.work_timeout = 0.05  # how long stop waits; the running attempt keeps its own limit
    await asyncio.wait_for(worker.stop(), 8)
    release.set()
    assert client.lrange(config.get_queue_key("jobs"), 0, -1) == [before]
    assert config.get_metrics()["retried"] == config.get_metrics()["failed"] == 0


async def test_what_was_handed_back_runs_in_the_next_life(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    lives = 0

    async def work(entity: Any) -> None:
        nonlocal lives
        lives += 1
        inbox.put(lives)
        if lives == 1:
            await asyncio.Event().wait()

    queue.enqueue({}, work)
    worker = QueueWorker(config, work_timeout=0.1)
    worker.work_timeout = 30.0
    await worker.start()
    await inbox.next()
    worker.work_timeout = 0.05
    await worker.stop()
    async with running(worker):
        assert await inbox.next() == 2


@pytest.mark.timeout(20)
async def test_stopping_while_starting_leaves_nothing_running() -> None:
    """The server accepts and never answers, so that start takes its time."""
    with silent_port() as port:
        worker = QueueWorker(
            QueueConfig(redis_url=f"redis://127.0.0.1:{port}", logger=LineLogger(), connection_timeout=0.1)
        )
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
async def test_a_cancelled_start_can_be_done_again() -> None:
    """After a start that was given up the worker does not claim to run."""
    with silent_port() as port:
        worker = QueueWorker(
            QueueConfig(redis_url=f"redis://127.0.0.1:{port}", logger=LineLogger(), connection_timeout=0.2)
        )
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.start(), 0.05)
        assert not worker.running
        assert our_tasks() == []


@pytest.mark.timeout(20)
async def test_stopping_without_a_server_is_bounded(start_server: StartServer, inbox: Inbox) -> None:
    server = start_server()
    config = QueueConfig(redis_url=server.url, logger=LineLogger(), connection_timeout=0.3)
    QueueManager(config).enqueue({}, inbox.put)
    worker = QueueWorker(config, work_timeout=1.0)
    await worker.start()
    await inbox.next()
    server.kill()
    await asyncio.wait_for(worker.stop(), 10)
    assert not worker.running
    config.transport.close()


def run_until_cancelled(main: Coroutine[Any, Any, None]) -> list[str]:
    """Run a main task that leaves its worker running: asyncio.run then cancels all tasks, as at Ctrl-C.

    Returns the resources that were left open.
    """
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main)
        gc.collect()
    return [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)]


def test_cancelling_the_main_task_hands_back_what_runs(queue: QueueManager, config: QueueConfig) -> None:
    """There is no stop(), and no time to await anything."""
    started = threading.Event()

    async def hang(entity: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async def main() -> None:
        await QueueWorker(config, max_workers=2).start()
        await asyncio.to_thread(started.wait, 5)

    queue.enqueue_batch([{}] * 5, hang)
    run_until_cancelled(main())
    assert started.is_set()
    status = queue.get_queue_status()
    assert (status["total_items"], status[f"{config.queue_prefix}running"]) == (5, 0)
    assert config.get_metrics()["retried"] == config.get_metrics()["failed"] == 0


def test_a_cancelled_worker_leaves_neither_threads_nor_connections(queue: QueueManager, config: QueueConfig) -> None:
    """A program may run many event loops one after the other."""
    ran = threading.Event()

    async def main() -> None:
        await QueueWorker(config).start()
        await asyncio.to_thread(ran.wait, 5)

    left: list[str] = []
    for _ in range(3):
        ran.clear()
        queue.enqueue({}, lambda entity: ran.set())
        left += run_until_cancelled(main())
    wait_until(lambda: not our_threads(), "all threads end", 3.0)
    assert left == []


@pytest.mark.timeout(30)
def test_a_hanging_sync_callback_does_not_keep_a_stopped_process_alive(
    server: OwnServer, prefix: str, tmp_path: Path
) -> None:
    """As with a hanging processor: its thread is given up, and the interpreter ends."""
    program = tmp_path / "program.py"
    program.write_text("""
import asyncio, sys, threading
from queue_system import QueueConfig, QueueManager, QueueWorker
config = QueueConfig(redis_url=sys.argv[1], queue_prefix=sys.argv[2])
started = threading.Event()
def hang(data):
    started.set()
    threading.Event().wait(600)
async def main():
    QueueManager(config).enqueue({}, lambda entity: None, on_success=hang)
    worker = QueueWorker(config, work_timeout=0.2)
    await worker.start()
    await asyncio.to_thread(started.wait, 10)
    await worker.stop()
    print("stopped", flush=True)
asyncio.run(main())
""")
    command = [sys.executable, str(program), server.url, prefix]
    with subprocess.Popen(command, env={"PYTHONPATH": str(SRC)}, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "stopped\n"
            assert process.wait(5) == 0
        finally:
            process.kill()


LOOPS = [asyncio.new_event_loop, pytest.param("uvloop", id="uvloop")]


def new_loop(kind: Any) -> asyncio.AbstractEventLoop:
    if kind == "uvloop":
        loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
        return loop
    return asyncio.new_event_loop()


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("way", ["started", "stopped"])
def test_a_worker_whose_event_loop_was_closed_works_in_another_one(
    server: OwnServer, prefix: str, kind: Any, way: str
) -> None:
    """What it held goes back at once; nobody else has to wait for the end of its lease."""
    config = QueueConfig(redis_url=server.url, queue_prefix=prefix, logger=LineLogger())
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
        assert is_running(worker) is (way == "started")
        if way == "stopped":
            await worker.start()
        await eventually(lambda: ran == [1, 1])
        await worker.stop()

    for work in (hold_one, go_on):
        loop = new_loop(kind)
        loop.run_until_complete(work())
        loop.close()
        assert not is_running(worker)
        gc.collect()
    with server.client() as client:
        assert client.hlen(f"{prefix}workers") == 0
    config.transport.close()


@pytest.mark.parametrize("stops", [True, False], ids=["stop", "cancelled"])
def test_a_frozen_server_holds_up_the_end_of_a_worker_for_five_seconds_at_most(
    start_server: StartServer, stops: bool
) -> None:
    """With an operation that has to be cancelled, and settlements that cannot be sent."""
    server = start_server()
    config = QueueConfig(redis_url=server.url, logger=LineLogger())
    took_s: list[float] = []

    async def main() -> None:
        began = asyncio.Event()

        async def work(_: Any) -> None:
            began.set()
            await asyncio.sleep(60)

        QueueManager(config).enqueue({}, work)
        worker = QueueWorker(config, max_workers=2)
        await worker.start()
        await asyncio.wait_for(began.wait(), 10)
        os.kill(server.pid, signal.SIGSTOP)
        took_s.append(time.monotonic())
        if stops:
            await worker.stop(grace=0.5)

    try:
        asyncio.run(main())
        assert time.monotonic() - took_s[0] <= 5.0
    finally:
        os.kill(server.pid, signal.SIGCONT)
