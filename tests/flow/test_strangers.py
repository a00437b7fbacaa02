"""What runs inside a worker and is not ours may fail; the worker goes on, and says what failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from queue_system import QueueManager, QueueWorker
from queue_system.execution import completer
from queue_system.execution.claimer import Claimer
from tests.kit.configs import MakeConfig
from tests.kit.inbox import Inbox
from tests.kit.waiting import eventually
from tests.kit.workers import running


class Sick:
    """An observer that fails each time."""

    def settled(self, settlements: Sequence[Any]) -> None:
        raise ValueError("the exporter is full")

    def lease_lost(self, operations: int) -> None:
        raise ValueError("the exporter is full")


async def test_an_observer_that_fails_harms_no_operation(make_config: MakeConfig, inbox: Inbox) -> None:
    config = make_config()
    config.observers.append(Sick())
    QueueManager(config).enqueue_batch([{"n": n} for n in range(200)], inbox.put)
    async with running(QueueWorker(config, max_workers=2)):
        await inbox.take(200)
        await eventually(lambda: config.get_metrics()["processed"] == 200, "all are settled")
    assert inbox.empty
    assert {line.fields["observer"] for line in config.logger.lines if "observer" in line.message} == {"Sick"}
    assert all("trouble" not in line.message for line in config.logger.lines)


async def test_a_turn_that_fails_unexpectedly_is_taken_again(
    make_config: MakeConfig, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exception is none of ours, so that nothing is known of it; nothing is run twice or lost."""
    config, failures = make_config(), list[Exception]()
    tend = Claimer.tend

    def tend_badly(self: Claimer, now: float) -> None:
        while failures:
            raise failures.pop()
        tend(self, now)

    monkeypatch.setattr(Claimer, "tend", tend_badly)
    async with running(QueueWorker(config)):
        failures.append(RuntimeError("what is this?"))
        QueueManager(config).enqueue_batch([{"n": n} for n in range(20)], inbox.put)
        seen = await inbox.take(20)
    assert sorted(entity["n"] for entity in seen) == list(range(20))
    (line,) = [line for line in config.logger.lines if line.message == "unexpected trouble: trying again"]
    assert line.fields["error"] == "what is this?"


async def test_running_is_noted_however_young_the_host_is(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock may begin with the host: seen from a longer interval, this one was started just now."""
    monkeypatch.setattr(completer, "_NOTE_AGAIN_S", 1e12)
    config, gate = make_config(), asyncio.Event()
    queue = QueueManager(config)

    async def waits(entity: Any) -> None:
        await gate.wait()

    operation_id = queue.enqueue({}, waits)["operation_id"]
    async with running(QueueWorker(config)):
        await eventually(lambda: getattr(queue.get_operation(operation_id), "status", "") == "running", "it is noted")
        gate.set()
