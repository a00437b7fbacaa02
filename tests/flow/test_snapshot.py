"""What a worker tells of itself: what it runs and holds, whether it lives, and when there is more."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from queue_system import QueueManager, QueueWorker, WorkerSnapshot
from tests.kit.configs import MakeConfig
from tests.kit.waiting import eventually
from tests.kit.workers import running


async def test_a_worker_that_was_not_started_tells_only_what_it_was_made_for(make_config: MakeConfig) -> None:
    worker = QueueWorker(make_config(), max_workers=3, queues=["a", "b"])
    assert worker.snapshot() == WorkerSnapshot(queues=("a", "b"), slots=3)
    assert worker.loop is None


async def test_a_worker_tells_what_it_runs_and_holds_from_any_thread(make_config: MakeConfig) -> None:
    """While two operations run, and when both were settled."""
    config, gate = make_config(), asyncio.Event()
    queue, worker = QueueManager(config), QueueWorker(config, max_workers=2)

    async def waits(entity: Any) -> None:
        await gate.wait()

    async with running(worker):
        ids = {queue.enqueue({"n": n}, waits)["operation_id"] for n in range(3)}
        await eventually(lambda: worker.snapshot().busy == 2, "both slots run an operation")
        found = await asyncio.to_thread(worker.snapshot)
        assert set(found.operations) < ids
        assert (found.running, found.slots, found.in_flight, found.idle) == (True, 2, 2, False)
        assert found.takes_turns
        assert found.starts_operations
        assert (found.dead_slots, found.abandoned, found.stalled_s) == (0, 0, 0.0)
        assert found.contact_age_s is not None
        assert found.heartbeat_age_s is not None
        (record,) = await queue.alist_workers()
        assert found.worker_id == record.worker_id
        assert worker.loop is asyncio.get_running_loop()
        gate.set()
        await eventually(lambda: worker.snapshot().idle, "all three are settled")
        found = worker.snapshot()
        assert (found.operations, found.in_flight, found.waiting, found.unsettled) == ((), 0, 0, 0)
    found = worker.snapshot()
    assert (found.running, found.takes_turns, found.starts_operations) == (False, False, False)


async def test_a_worker_tells_when_the_next_delayed_operation_is_due(make_config: MakeConfig) -> None:
    config = make_config()
    QueueManager(config).enqueue({}, str, delay=1000)
    worker = QueueWorker(config)
    assert worker.snapshot().next_due_s is None
    async with running(worker):
        await eventually(lambda: worker.snapshot().next_due_s is not None, "a claim was told of it")
        due_s = worker.snapshot().next_due_s
        assert due_s is not None
        assert 900 < due_s <= 1000


def test_a_snapshot_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        WorkerSnapshot().slots = 1  # type: ignore[misc]
