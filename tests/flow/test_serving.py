"""Which operation runs next and where: priorities, turns among queues, filters, several workers, slots."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter
from typing import Any

import pytest

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.execution import claimer
from tests.kit.configs import MakeConfig
from tests.kit.inbox import Inbox
from tests.kit.operations import either
from tests.kit.waiting import eventually
from tests.kit.workers import running


async def test_higher_priorities_run_first(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    for priority in ("low", "normal", "high"):
        queue.enqueue_batch([{"p": priority, "n": n} for n in range(20)], inbox.put, priority=priority)
    async with running(QueueWorker(config, max_workers=1)):
        seen = [entity["p"] for entity in await inbox.take(60)]
    assert seen == ["high"] * 20 + ["normal"] * 20 + ["low"] * 20


async def test_a_high_operation_overtakes_what_waits(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    """One slot is busy; the next to start is the high one, enqueued last."""
    gate = asyncio.Event()

    async def work(entity: Any) -> None:
        inbox.put(entity["n"])
        await gate.wait()

    queue.enqueue_batch([{"n": n} for n in range(5)], work, priority="low")
    async with running(QueueWorker(config, max_workers=1)):
        await inbox.next()
        queue.enqueue({"n": "high"}, work, priority="high")
        gate.set()
        assert await inbox.next() == "high"
        await inbox.take(4)


async def test_queues_of_one_priority_take_turns(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    """A queue of 400 operations does not keep one of 20 waiting until its end."""
    queue.enqueue_batch([{"q": "long"}] * 400, inbox.put, queue_name="long")
    queue.enqueue_batch([{"q": "short"}] * 20, inbox.put, queue_name="short")
    async with running(QueueWorker(config, max_workers=1)):
        seen = [entity["q"] for entity in await inbox.take(420)]
    assert max(index for index, name in enumerate(seen) if name == "short") < 200


async def test_a_worker_serves_only_its_queues(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    for name in ("mail", "other", "sms"):
        queue.enqueue({"q": name}, inbox.put, queue_name=name, priority="low")
    async with running(QueueWorker(config, queues=["mail", "sms"])):
        assert {entity["q"] for entity in await inbox.take(2)} == {"mail", "sms"}
        queue.enqueue({"q": "other again"}, inbox.put, queue_name="other", priority="high")
        queue.enqueue({"q": "mail again"}, inbox.put, queue_name="mail")
        assert (await inbox.next())["q"] == "mail again"
    assert inbox.empty
    assert queue.get_queue_status()["total_items"] == 2


async def test_an_idle_worker_wakes_for_its_queue(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    async with running(QueueWorker(config, queues=["mail"])), running(QueueWorker(config, queues=["sms"])):
        for name in ("mail", "sms", "mail"):
            queue.enqueue({"q": name}, inbox.put, queue_name=name)
            assert (await inbox.next())["q"] == name


async def test_two_workers_share_a_queue_and_run_each_operation_once(make_config: MakeConfig, inbox: Inbox) -> None:
    configs = [make_config(), make_config()]
    seen: list[list[int]] = [[], []]
    for config, mine in zip(configs, seen, strict=True):

        async def work(entity: Any, mine: list[int] = mine) -> None:
            mine.append(entity["n"])
            await asyncio.sleep(0.002)
            inbox.put(entity["n"])

        config.register_callback(work, "work", "shop")
    workers = [QueueWorker(config, max_workers=2) for config in configs]
    async with running(workers[0]), running(workers[1]):
        QueueManager(configs[0]).enqueue_batch([{"n": n} for n in range(200)], "shop.work")
        await inbox.take(200)
    assert Counter(seen[0] + seen[1]) == Counter(range(200))
    assert all(seen)


@pytest.mark.parametrize("max_workers", [1, 3])
async def test_no_more_run_at_once_than_there_are_slots(
    queue: QueueManager, config: QueueConfig, inbox: Inbox, max_workers: int
) -> None:
    gate = asyncio.Event()
    now = most = 0

    async def work(entity: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        inbox.put(entity)
        await gate.wait()
        now -= 1

    queue.enqueue_batch([{"n": n} for n in range(8)], work)
    async with running(QueueWorker(config, max_workers=max_workers)):
        await inbox.take(max_workers)
        assert now == max_workers
        gate.set()
        await inbox.take(8 - max_workers)
    assert most == max_workers


async def test_sync_processors_run_at_once_in_threads(queue: QueueManager, config: QueueConfig, inbox: Inbox) -> None:
    barrier = threading.Barrier(3, timeout=5)

    def work(entity: Any) -> None:
        barrier.wait()
        inbox.put(threading.current_thread() is threading.main_thread())

    queue.enqueue_batch([{}] * 3, work)
    async with running(QueueWorker(config, max_workers=3)):
        assert await inbox.take(3) == [False] * 3


async def test_work_claimed_ahead_is_released_when_the_worker_is_busy(make_config: MakeConfig, inbox: Inbox) -> None:
    """A worker whose short operations were claimed ahead meets a long one; an idle second worker gets the rest."""
    config = make_config()
    queue = QueueManager(config)
    release = asyncio.Event()

    async def work(entity: Any) -> None:
        if entity["n"] == 300:
            inbox.put("stuck")
            await release.wait()

    queue.enqueue_batch([{"n": n} for n in range(1000)], work)
    first, second = QueueWorker(config, max_workers=1), QueueWorker(config, max_workers=1)
    async with running(first):
        assert await inbox.next() == "stuck"
        async with running(second):
            await eventually(lambda: config.get_metrics()["processed"] == 999, "the second worker runs all the rest", 5)
            release.set()
    assert config.get_metrics()["processed"] == 1000


async def test_a_high_operation_waits_behind_at_most_20_ms_of_work_claimed_ahead(
    queue: QueueManager, config: QueueConfig
) -> None:
    """Counted, not timed: with 4 slots and 2 ms each, 20 ms of work are 40 operations, and 4 more are starting."""
    slots, run_s, window_s = 4, 0.002, 0.020
    started_low = 0
    overtaken: asyncio.Queue[int] = asyncio.Queue()

    async def low(entity: Any) -> None:
        nonlocal started_low
        started_low += 1
        await asyncio.sleep(run_s)

    async def high(entity: Any) -> None:
        overtaken.put_nowait(started_low - entity["started_low"])

    queue.enqueue_batch([{}] * 3000, low, priority="low")
    waited_behind = []
    async with running(QueueWorker(config, max_workers=slots)):
        for target in range(300, 2401, 150):
            await eventually(lambda target=target: started_low >= target, "the low operations run")  # type: ignore[misc]
            queue.enqueue({"started_low": started_low}, high, priority="high")
            waited_behind.append(await asyncio.wait_for(overtaken.get(), 5))
    assert max(waited_behind) <= window_s * slots / run_s + slots, waited_behind


async def test_what_is_handed_back_is_overtaken_by_nothing(
    queue: QueueManager, config: QueueConfig, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that hands back at every occasion claims while it does, and what it claims came later."""
    monkeypatch.setattr(claimer, "RELEASE_AFTER_S", 0.0005)
    queue.enqueue_batch([{"n": n} for n in range(3000)], inbox.put)
    async with running(QueueWorker(config, max_workers=1)):
        assert [entity["n"] for entity in await inbox.take(3000)] == list(range(3000))


@pytest.mark.parametrize("max_workers", [1, 3])
async def test_a_free_slot_takes_what_is_claimed_before_anything_is_handed_back(
    queue: QueueManager, config: QueueConfig, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, max_workers: int
) -> None:
    """However early that is, as on a machine so busy that slots come round late: the worker makes progress."""
    monkeypatch.setattr(claimer, "RELEASE_AFTER_S", -1.0)
    queue.enqueue_batch([{"n": n} for n in range(200)], inbox.put)
    async with running(QueueWorker(config, max_workers=max_workers)):
        taken = [entity["n"] for entity in await inbox.take(200)]
    assert (taken if max_workers == 1 else sorted(taken)) == list(range(200))


async def test_what_a_busy_worker_claimed_runs_first_after_its_release(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    """A release spends no attempt and keeps the order."""
    release = asyncio.Event()
    seen: list[int] = []

    async def work(entity: Any) -> None:
        seen.append(entity["n"])
        if entity["n"] == 500:
            inbox.put("stuck")
            await release.wait()
        if entity["n"] == 999:
            inbox.put("end")

    queue.enqueue_batch([{"n": n} for n in range(1000)], work)
    async with running(QueueWorker(config, max_workers=1)):
        assert await inbox.next() == "stuck"
        await eventually(lambda: queue.get_queue_status()["total_items"] == 499, "what waits is back in its list")
        release.set()
        assert await inbox.next() == "end"
    assert seen == list(range(1000))


variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default="unset")


async def test_a_context_variable_of_one_processor_does_not_reach_the_next(
    queue: QueueManager, config: QueueConfig, inbox: Inbox, is_async: bool
) -> None:
    def work(entity: Any) -> None:
        inbox.put(variable.get())
        variable.set(entity["n"])

    variable.set("outer")
    queue.enqueue_batch([{"n": n} for n in range(20)], either(work, is_async=is_async))
    async with running(QueueWorker(config, max_workers=1)):
        assert await inbox.take(20) == ["outer"] * 20


class Grumpy:
    """A value that cannot be compared, as arrays of numbers cannot."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    def __hash__(self) -> int:
        return 1


async def test_a_context_variable_that_cannot_be_compared_stops_no_slot(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    async def work(entity: Any) -> None:
        variable.set(Grumpy())
        inbox.put(entity["n"])

    variable.set(Grumpy())
    queue.enqueue_batch([{"n": n} for n in range(5)], work)
    async with running(QueueWorker(config, max_workers=1)):
        assert await inbox.take(5) == list(range(5))
