"""The probes over real HTTP: of a healthy worker, of one in trouble, and while server or event loop stand still."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import httpx
import pytest

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.monitoring.health import WorkerHealth, health_of, longest_beat_s
from queue_system.monitoring.probes import ProbeServer, create_app, serve
from tests.kit.configs import MakeConfig
from tests.kit.servers import OwnServer, StartServer, free_port, frozen, listens
from tests.kit.waiting import eventually, wait_until
from tests.kit.workers import running
from tests.monitoring.support import Probe, of, probing

ENDPOINTS = ("/livez", "/readyz", "/status.json")


@contextlib.contextmanager
def watching(config: QueueConfig, worker: QueueWorker, **options: Any) -> Iterator[Probe]:
    with probing(create_app(config, lambda: [health_of(worker)], **options)) as probe:
        yield probe


async def answers(probe: Probe, path: str) -> tuple[int, dict[str, Any]]:
    """Ask in a thread, since the event loop is the worker's."""
    return await asyncio.to_thread(probe.get, path)


async def test_a_healthy_worker_is_alive_and_ready_and_its_queues_are_told(make_config: MakeConfig) -> None:
    config = make_config()
    queue, worker = QueueManager(config), QueueWorker(config, max_workers=3, queues=["served"])
    for priority in ("high", "low", "low"):
        queue.enqueue({}, "shop.work", queue_name="mails", priority=priority)
    queue.enqueue({}, "shop.work", queue_name="mails", delay=60)
    with watching(config, worker) as probe:
        async with running(worker):
            await eventually(lambda: health_of(worker).contact_age_s is not None, "a beat was answered")
            alive, body = await answers(probe, "/livez")
            assert (alive, body["status"], body["reasons"]) == (200, "ok", [])
            (found,) = body["workers"]
            assert (found["pid"], found["slots"], found["busy"], found["running"]) == (os.getpid(), 3, 0, True)
            ready, body = await answers(probe, "/readyz")
            assert (ready, body["reasons"]) == (200, [])
            told, body = await answers(probe, "/status.json")
            assert (told, body["total_items"], body["delayed"], body["workers"]) == (200, 3, 1, 1)
            mails = body["queues"]["mails"]
            assert (mails["depth"], mails["priorities"]["low"]["depth"]) == (3, 2)
            assert 0 <= mails["oldest_age_seconds"] <= body["oldest_age_seconds"] < 60
            assert body["queues"]["served"]["depth"] == 0
            assert body["metrics"]["enqueued"] == 4


async def test_before_its_start_and_after_its_stop_a_worker_is_alive_and_not_ready(make_config: MakeConfig) -> None:
    config = make_config()
    worker = QueueWorker(config)
    with watching(config, worker) as probe:
        for _ in range(2):
            assert (await answers(probe, "/livez"))[0] == 200
            status, body = await answers(probe, "/readyz")
            assert (status, body["reasons"]) == (503, [f"worker {os.getpid()}: it is not running"])
            async with running(worker):
                await eventually(lambda: health_of(worker).consuming, "it consumes")


async def test_a_worker_that_winds_down_is_alive_and_not_ready(make_config: MakeConfig) -> None:
    config, end, began = make_config(), asyncio.Event(), asyncio.Event()

    async def work(entity: Any) -> None:
        began.set()
        await end.wait()

    QueueManager(config).enqueue({}, work)
    worker = QueueWorker(config)
    with watching(config, worker) as probe:
        await worker.start()
        await asyncio.wait_for(began.wait(), 10)
        stopping = asyncio.create_task(worker.stop())
        await eventually(lambda: not health_of(worker).consuming, "it winds down")
        assert (await answers(probe, "/livez"))[0] == 200
        assert (await answers(probe, "/readyz"))[0] == 503
        assert health_of(worker).busy == 1
        end.set()
        await stopping


@pytest.mark.parametrize("trouble", ["dead", "frozen"])
async def test_no_probe_hangs_on_a_server_in_trouble_and_only_readiness_suffers(
    trouble: str, make_config: MakeConfig, start_server: StartServer
) -> None:
    """The connection's own limit is longer than this test waits for an answer."""
    own = start_server()
    config = make_config(redis_url=own.url, connection_timeout=30.0)
    worker = QueueWorker(config)
    with watching(config, worker) as probe:
        async with running(worker):
            for path in ENDPOINTS:
                assert (await answers(probe, path))[0] == 200
            with out_of_order(own, trouble):
                await asyncio.to_thread(wait_until, lambda: probe.get("/readyz")[0] == 503, "the trouble is noticed")
                assert (await answers(probe, "/livez"))[0] == 200
                status, body = await answers(probe, "/readyz")
                assert status == 503
                assert body["reasons"][0].startswith("ServerUnreachableError: ")
                status, body = await answers(probe, "/status.json")
                assert status == 503
                assert (body["processes"][0]["pid"], len(body["reasons"])) == (os.getpid(), 1)
                assert of(await asyncio.to_thread(probe.scrape), "queue_system_fleet_up") == 0
            await eventually_ready(probe)


@contextlib.contextmanager
def out_of_order(own: OwnServer, trouble: str) -> Iterator[None]:
    """Kill or freeze a server, and bring it back."""
    if trouble == "dead":
        own.kill()
        yield
        own.start()
        return
    with frozen(own):
        yield


async def eventually_ready(probe: Probe) -> None:
    """Wait until the worker is ready and the fleet is told of."""

    def ready() -> bool:
        return all(probe.get(path)[0] == 200 for path in ENDPOINTS)

    await asyncio.to_thread(wait_until, ready, "all probes are well again", 30.0)


async def test_a_processor_that_blocks_the_event_loop_fails_the_liveness_probe_and_no_other_answer(
    make_config: MakeConfig,
) -> None:
    config, blocked, go_on = make_config(), threading.Event(), threading.Event()

    async def block(entity: Any) -> None:
        blocked.set()
        go_on.wait(30)  # the fault that is tested: it blocks every coroutine of this thread

    worker = QueueWorker(config)

    def watch(probe: Probe) -> dict[str, Any]:
        assert blocked.wait(10)
        try:
            wait_until(lambda: probe.get("/livez")[0] == 503, "the blocked loop is noticed")
            assert probe.get("/status.json")[0] == 200
            assert of(probe.scrape(), "queue_system_event_loop_lag_seconds") > 0.2
            return probe.get("/livez")[1]
        finally:
            go_on.set()

    with watching(config, worker, blocked_after=0.2) as probe:
        async with running(worker):
            QueueManager(config).enqueue({}, block)
            body = await asyncio.to_thread(watch, probe)
            assert "its event loop has been blocked for" in body["reasons"][0]
            await asyncio.to_thread(wait_until, lambda: probe.get("/livez")[0] == 200, "it is alive again")


async def test_a_worker_without_its_heartbeat_or_its_turns_is_dead(make_config: MakeConfig) -> None:
    """Nothing but a restart brings either back."""
    config = make_config()
    worker = QueueWorker(config)
    with watching(config, worker) as probe:
        async with running(worker):
            heartbeat = worker._services[0]
            heartbeat.stop()
            await asyncio.to_thread(heartbeat.join, 10)
            status, body = await answers(probe, "/livez")
            assert (status, body["reasons"]) == (503, [f"worker {os.getpid()}: its heartbeat has ended"])
    assert WorkerHealth(1, running=True, heartbeat_age_s=0.1).why_dead(30, 30) == ["it has stopped fetching operations"]


async def test_a_worker_without_a_slot_or_that_starts_nothing_is_neither_alive_nor_ready(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    worker, inbox = QueueWorker(config, max_workers=2), asyncio.Event()

    async def work(entity: Any) -> None:
        inbox.set()

    with watching(config, worker, blocked_after=0.2) as probe:
        async with running(worker):
            await eventually(lambda: health_of(worker).consuming, "it consumes")
            engine = worker._engine
            assert engine is not None
            slots = list(engine.executor.slots)
            for slot in slots:
                slot.closing = True  # so that nobody replaces it
                assert slot.task is not None
                slot.task.cancel()
            await eventually(lambda: health_of(worker).dead_slots == 2, "its slots have ended")
            QueueManager(config).enqueue({}, work)
            await eventually(lambda: health_of(worker).stalled_s > 0.3, "it has work and starts none")
            for path in ("/livez", "/readyz"):
                status, body = await answers(probe, path)
                assert status == 503
                assert f"worker {os.getpid()}: 2 of its 2 slots have ended" in body["reasons"]
            assert "it has had work for" in (await answers(probe, "/livez"))[1]["reasons"][1]
    assert not inbox.is_set()
    stalled = WorkerHealth(1, running=True, fetching=True, heartbeat_age_s=0.1, contact_age_s=0.1, stalled_s=31.0)
    assert stalled.why_dead(30, 30) == stalled.why_idle() == ["it has had work for 31.0 s and has started none"]


async def test_a_process_without_workers_tells_of_the_fleet_and_a_supervisor_without_children_is_not_ready(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    with probing(create_app(config, None)) as exporter, probing(create_app(config, list, fleet=False)) as bereft:
        for path in ENDPOINTS:
            assert (await answers(exporter, path))[0] == 200
        assert of(await asyncio.to_thread(exporter.scrape), "queue_system_fleet_up") == 1
        assert (await answers(bereft, "/livez"))[0] == 200
        status, body = await answers(bereft, "/readyz")
        assert (status, body["reasons"]) == (503, ["no worker is running here"])
        names = {name for name, _ in await asyncio.to_thread(bereft.scrape)}
        assert "queue_system_worker_slots" in names
        assert "queue_system_fleet_up" not in names


async def test_one_worker_that_consumes_makes_a_process_of_several_ready(make_config: MakeConfig) -> None:
    config = make_config()
    others = [
        WorkerHealth(1, running=True, fetching=True),
        WorkerHealth(2, running=True, fetching=True, consuming=True),
    ]
    with probing(create_app(config, lambda: others)) as probe:
        assert (await answers(probe, "/readyz"))[0] == 200


def test_health_travels_as_json_and_grows_old() -> None:
    health = WorkerHealth(7, "w", True, True, True, 5, 1, 0.5, 1.0, None, {"redis": "closed"})
    assert WorkerHealth(**json.loads(json.dumps(asdict(health)))) == health
    older = health.aged(40.0)
    assert (older.loop_lag_s, older.heartbeat_age_s, older.contact_age_s) == (40.5, 41.0, None)
    assert [why.split(" for ")[0] for why in older.why_dead(30, 30)] == [
        "its event loop has been blocked", "its heartbeat has been stuck",
    ]  # fmt: skip


def test_a_beat_that_the_server_leaves_waiting_is_not_taken_for_a_stuck_one(make_config: MakeConfig) -> None:
    """A beat connects and waits up to three times, each for the connection's limit."""
    assert longest_beat_s(make_config(connection_timeout=20.0)) > 3 * 2 * 20.0


async def test_the_server_in_the_event_loop_ends_when_cancelled_and_leaves_the_signals_alone(
    make_config: MakeConfig,
) -> None:
    port = free_port()
    before = signal.getsignal(signal.SIGTERM)
    serving = asyncio.create_task(serve(create_app(make_config(), None), f"127.0.0.1:{port}"))
    async with httpx.AsyncClient() as client:
        await eventually(lambda: listens(port), "it listens")
        assert (await client.get(f"http://127.0.0.1:{port}/livez")).status_code == 200
        assert (await client.post(f"http://127.0.0.1:{port}/livez")).status_code == 405
    assert signal.getsignal(signal.SIGTERM) is before
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not listens(port)


@pytest.mark.parametrize(
    "address, error",
    [
        ("9200", ValueError), (":9200", ValueError), ("localhost:http", ValueError), ("127.0.0.1:99999", ValueError),
        ("127.0.0.1:\N{SUPERSCRIPT TWO}", ValueError), (None, OSError),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_had_is_refused(
    address: str | None, error: type[Exception], make_config: MakeConfig
) -> None:
    app = create_app(make_config(), None)
    told = "expected HOST:PORT" if address else "in use"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(error, match=told):
        ProbeServer(app, address or f"127.0.0.1:{taken.getsockname()[1]}")
