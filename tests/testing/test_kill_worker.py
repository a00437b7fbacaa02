"""kill_worker ends a worker as kill -9 does: nothing is handed back, and whoever comes next takes over."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.testing import kill_worker, run_until_idle
from tests.kit.servers import OwnServer


async def test_nothing_is_settled_and_all_runs_again(
    config: QueueConfig, queue: QueueManager, server: OwnServer, prefix: str
) -> None:
    """What ran and what waited is still booked on the dead worker; the next one runs it, as after a crash."""
    runs: list[int] = []
    begun, alive = asyncio.Event(), asyncio.Event()

    async def work(entity: Any) -> None:
        runs.append(entity["n"])
        begun.set()
        if not alive.is_set():
            await asyncio.sleep(60)

    queue.enqueue_batch([{"n": n} for n in range(3)], work)
    worker = QueueWorker(config, max_workers=2)
    await worker.start()
    await begun.wait()
    await asyncio.sleep(0)
    await kill_worker(worker)

    first = sorted(runs)
    status = queue.get_queue_status()
    assert (worker.running, first) == (False, [0, 1])
    assert status[f"{prefix}running"] + status["total_items"] == 3
    assert status[f"{prefix}running"] >= 2
    assert "processed" not in status["metrics"]
    with server.client() as client:
        (name,) = client.hkeys(f"{prefix}workers")
        assert name.startswith(b"dead:")

    alive.set()
    await run_until_idle(config)
    assert sorted(runs) == [0, 0, 1, 1, 2]
    assert queue.get_queue_status()["metrics"]["reclaimed"] >= 2


async def test_a_thread_runs_on_and_counts_for_nothing(config: QueueConfig, queue: QueueManager) -> None:
    """The late result of a sync processor is dropped."""
    begun, go_on = threading.Event(), threading.Event()
    runs: list[str] = []

    def work(entity: Any) -> str:
        runs.append("run")
        begun.set()
        go_on.wait(10)
        return "done"

    queue.enqueue({}, work)
    worker = QueueWorker(config)
    await worker.start()
    await asyncio.to_thread(begun.wait, 10)
    await kill_worker(worker)
    go_on.set()
    await run_until_idle(config)
    assert runs == ["run", "run"]
    assert queue.get_queue_status()["metrics"]["processed"] == 1


async def test_killing_what_does_not_run_does_nothing(config: QueueConfig) -> None:
    """A worker that was never started, or was killed already, may be killed; a killed one may be started again."""
    worker = QueueWorker(config)
    await kill_worker(worker)
    await worker.start()
    await kill_worker(worker)
    await kill_worker(worker)
    await worker.start()
    assert worker.running
    await worker.stop()
