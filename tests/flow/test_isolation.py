"""A suspect of being poison runs alone in its process, whatever that holds, and stands in nobody's way for long."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.waiting import eventually
from tests.kit.workers import running

SUSPECT = 2
LEASE_S = 24.0
LEFT_S = 0.35 * LEASE_S
"""What a reclaimer that took 1.15 leases leaves of the one and a half in which what a dead worker held runs again."""


class Watch:
    """Notes what runs at the same time in this process, in whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now: set[str] = set()
        self.beside: dict[str, set[str]] = {}
        self.ended: list[str] = []

    async def work(self, entity: dict[str, Any]) -> None:
        name = entity["name"]
        with self._lock:
            self.now.add(name)
            for each in self.now:
                self.beside.setdefault(each, set()).update(self.now - {each})
        await asyncio.sleep(entity["seconds"])
        with self._lock:
            self.now.discard(name)
            self.ended.append(name)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def push(
    client: redis.Redis, config: QueueConfig, name: str, seconds: float, crashes: int = 0, queue: str = "work"
) -> None:
    """Push an operation whose worker has died so often."""
    item = {
        "operation_id": name, "entity": {"name": name, "seconds": seconds}, "processor": "work",
        "processor_module": "shop", "crashes": crashes,
    }  # fmt: skip
    client.sadd(config.get_registry_key(), config.get_queue_key(queue))
    client.lpush(config.get_queue_key(queue), json.dumps(item))


def run_worker(config: QueueConfig, over: threading.Event, ready: threading.Event) -> None:
    async def main() -> None:
        async with running(QueueWorker(config)):
            ready.set()
            await asyncio.to_thread(over.wait)

    asyncio.run(main())


@asynccontextmanager
async def workers(configs: list[QueueConfig], *, in_threads: bool) -> AsyncIterator[None]:
    """Run a worker for each configuration, all in this loop, or each in a thread with a loop of its own."""
    if not in_threads:
        async with AsyncExitStack() as stack:
            for config in configs:
                await stack.enter_async_context(running(QueueWorker(config)))
            yield
        return
    over = threading.Event()
    readies = [threading.Event() for _ in configs]
    threads = [
        threading.Thread(target=run_worker, args=(config, over, ready))
        for config, ready in zip(configs, readies, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        for ready in readies:
            assert await asyncio.to_thread(ready.wait, 10.0)
        yield
    finally:
        over.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("in_threads", [False, True])
@pytest.mark.parametrize("prefixes", [1, 2])
async def test_a_suspect_runs_beside_nothing_that_any_worker_of_its_process_holds(
    make_config: MakeConfig, client: redis.Redis, watch: Watch, prefix: str, in_threads: bool, prefixes: int
) -> None:
    """A poison among them would take the others along: they would be counted as often, and dead-lettered with it."""
    configs = [make_config(queue_prefix=f"{prefix}{number % prefixes}:") for number in range(3)]
    for config in configs:
        config.register_callback(watch.work, "work", "shop")
    names = {f"suspect{i}" for i in range(6)}
    for i in range(30):
        push(client, configs[i % 3], f"normal{i}", 0.02)
        if i % 5 == 0:
            push(client, configs[i % 3], f"suspect{i // 5}", 0.05, SUSPECT)
    async with workers(configs, in_threads=in_threads):
        await eventually(lambda: len(watch.ended) == 36, "all have run", 30.0)
    assert {name: watch.beside[name] for name in names if watch.beside[name]} == {}
    assert sorted(watch.ended) == sorted({*names, *(f"normal{i}" for i in range(30))})


@pytest.mark.timeout(60)
async def test_a_suspect_that_cannot_start_keeps_no_slot_idle_for_long(
    make_config: MakeConfig, client: redis.Redis, watch: Watch
) -> None:
    """It waits apart while others run, and runs when the long one has ended."""
    config = make_config()
    config.register_callback(watch.work, "work", "shop")
    async with running(QueueWorker(config)):
        push(client, config, "long", 4.0)
        await eventually(lambda: "long" in watch.now, "the long one runs", 10.0)
        push(client, config, "suspect", 0.0, SUSPECT)
        for i in range(60):
            push(client, config, f"normal{i}", 0.05)
        await eventually(lambda: len(watch.ended) >= 60, "the normal ones have run", 30.0)
        assert "long" in watch.now
        assert "suspect" not in watch.ended
        await eventually(lambda: len(watch.ended) == 62, "the suspect has run, too", 30.0)
    assert watch.beside["suspect"] == set()


@pytest.mark.timeout(60)
async def test_many_suspects_do_not_stand_in_the_way_of_the_others(
    make_config: MakeConfig, client: redis.Redis, watch: Watch
) -> None:
    config = make_config()
    config.register_callback(watch.work, "work", "shop")
    for i in range(60):
        push(client, config, f"suspect{i}", 0.02, SUSPECT)
        push(client, config, f"normal{i}", 0.02)
    async with running(QueueWorker(config)):
        await eventually(lambda: len(watch.ended) == 120, "all have run", 40.0)
    last_normal = max(watch.ended.index(f"normal{i}") for i in range(60))
    assert sum(name.startswith("suspect") for name in watch.ended[:last_normal]) < 40
    assert all(not watch.beside[f"suspect{i}"] for i in range(60))


@pytest.mark.timeout(60)
async def test_suspects_beside_steady_work_run_again_within_one_and_a_half_leases(
    make_config: MakeConfig, client: redis.Redis, watch: Watch
) -> None:
    """Their process is never empty by itself; each that is set aside comes back when it may have the process."""
    config = make_config(lease_seconds=LEASE_S)
    config.register_callback(watch.work, "work", "shop")
    for i in range(300):
        push(client, config, f"normal{i}", 0.15 + i % 4 / 20, queue="steady")
    async with running(QueueWorker(config, max_workers=4)):
        await eventually(lambda: len(watch.now) == 4, "the process is busy", 10.0)
        for i in range(6):
            push(client, config, f"suspect{i}", 0.1, SUSPECT)
        run = {f"suspect{i}" for i in range(6)}
        await eventually(lambda: run <= {*watch.ended}, "all suspects have run", LEFT_S)
        assert len(watch.ended) < 300, "there was other work all the time"
    assert all(not watch.beside[name] for name in run)


@pytest.mark.timeout(60)
async def test_a_single_item_waits_for_the_suspect_of_another_worker(
    make_config: MakeConfig, client: redis.Redis, watch: Watch
) -> None:
    config, other = make_config(), make_config()
    for each in (config, other):
        each.register_callback(watch.work, "work", "shop")
    push(client, config, "suspect", 0.5, SUSPECT)
    async with running(QueueWorker(config)):
        await eventually(lambda: "suspect" in watch.now, "the suspect runs", 10.0)
        push(client, config, "normal", 0.0)
        assert await QueueWorker(other)._process_queue_item(0) in (True, False)
        await eventually(lambda: len(watch.ended) == 2, "both have run", 10.0)
    assert watch.beside["suspect"] == set()


@pytest.mark.timeout(60)
async def test_single_suspects_run_one_by_one(make_config: MakeConfig, client: redis.Redis, watch: Watch) -> None:
    config = make_config()
    config.register_callback(watch.work, "work", "shop")
    for i in range(3):
        push(client, config, f"suspect{i}", 0.01, SUSPECT)
    item: Any = client.rpop(config.get_queue_key("work"))
    worker = QueueWorker(config)
    assert await worker._handle_queue_item(0, config.get_queue_key("work").encode(), item)
    async with running(worker):
        await eventually(lambda: len(watch.ended) == 3, "all have run", 10.0)
    assert all(not beside for beside in watch.beside.values())
