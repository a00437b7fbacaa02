"""run_until_idle returns when nothing is left to do, and not before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.testing import captured_operations, run_until_idle

RETRIED_AT_ONCE = QueueRetryConfig.custom(delays=[0, 0])


async def test_what_operations_enqueue_is_done_too(config: QueueConfig, queue: QueueManager) -> None:
    """Children, callbacks and retries without a delay are all finished."""
    seen: list[Any] = []

    async def parent(entity: Any) -> int:
        for child_id in range(3):
            queue.enqueue({"child": child_id}, child, on_success=noted)
        return 1

    def child(entity: Any) -> Any:
        seen.append("child")
        if len(seen) == 1:
            raise ValueError("once more")
        return entity

    async def noted(data: Any) -> None:
        await asyncio.sleep(0.01)
        seen.append("noted")

    queue.enqueue({}, parent, on_success=noted)
    config.register_callback(child)
    queue.enqueue({"child": 3}, child, retry_config=RETRIED_AT_ONCE)
    await run_until_idle(config)
    # One of the children ran first and failed: with the usual retries it waits, without a delay it is done.
    waiting = [operation.entity for operation in captured_operations(config)]
    assert len(waiting) <= 1
    assert seen.count("child") == 5 - len(waiting)
    assert seen.count("noted") == 4 - len(waiting)


@pytest.mark.parametrize("queues", [None, ["b"]])
async def test_skipped_delays_keep_their_order(
    config: QueueConfig, queue: QueueManager, queues: list[str] | None
) -> None:
    """What is due in hours is run at once, first due first, and retries of it likewise; other queues are left alone."""
    runs: list[int] = []

    async def work(entity: Any) -> None:
        runs.append(entity["n"])
        if entity["n"] == 0:
            raise ValueError("never")

    for n, delay in ((2, 7200.0), (1, 3600.0), (0, 60.0)):
        queue.enqueue({"n": n}, work, queue_name="b", delay=delay)
    if queues:
        queue.enqueue({"n": 9}, work, queue_name="a", delay=60)
    await run_until_idle(QueueWorker(config, max_workers=1, queues=queues), delayed="skip", timeout=10)
    assert [n for n in runs if n] == [1, 2]
    assert runs.count(0) == 5
    assert len(captured_operations(config)) == bool(queues)


async def test_delays_are_left_or_waited_for(config: QueueConfig, queue: QueueManager) -> None:
    """By default what is not due stays; with "wait" it is run when it is due."""
    runs: list[Any] = []
    queue.enqueue({}, runs.append, queue_name="q", delay=0.3)
    await run_until_idle(config)
    assert not runs
    await run_until_idle(config, delayed="wait")
    assert runs == [{}]


async def test_time_that_is_up_is_told_with_what_is_left(config: QueueConfig, queue: QueueManager) -> None:
    """The error says how much still runs, and the worker that was started is stopped."""
    worker = QueueWorker(config, queues=["hung"])
    forever = asyncio.Event()

    async def hang(entity: Any) -> None:
        await forever.wait()

    queue.enqueue({}, hang, queue_name="hung", timeout=60)
    with pytest.raises(TimeoutError, match=r"not idle after 1.5 s; left are \{.*'running'"):
        await run_until_idle(worker, timeout=1.5)
    assert not worker.running


async def test_a_worker_that_runs_goes_on(config: QueueConfig, queue: QueueManager) -> None:
    """A worker that was started before is left running."""
    worker = QueueWorker(config)
    await worker.start()
    try:
        await run_until_idle(worker)
        assert worker.running
    finally:
        await worker.stop()
