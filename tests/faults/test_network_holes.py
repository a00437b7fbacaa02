"""Networks that are silent, slow or narrow: every call ends in time, and work goes on as soon as bytes pass again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any

import pytest

from queue_system import QueueConfig, QueueWorker
from queue_system.broker.protocol import pack
from queue_system.broker.requests import NewOperation
from queue_system.errors import ServerUnreachableError
from queue_system.testing.proxy import Proxy, Shape
from tests.faults.conftest import Figures, each_ran_once
from tests.faults.support import processors
from tests.faults.support.bench import Bench, WorkerProcess
from tests.faults.support.producer import Producer, managing
from tests.kit.waiting import wait_until

NARROW_LEASE_S = 8.0
"""A beat takes as long as a reply may, so that none is under way for two beats."""
SLOW_LEASE_S = 1.5
RESUMED_WITHIN_S = 5.0
LONGEST_BLOCK_S = 5.0
GHOSTS = "operations without a holder"
W = "w1"


@dataclass(frozen=True, slots=True)
class Lane:
    """A producer and a worker that reach the server through one proxy, over a queue of their own."""

    name: str
    proxy: Proxy
    worker: WorkerProcess
    producer: Producer

    def moved(self, bench: Bench, since_ns: int) -> tuple[bool, bool]:
        """Tell whether, after a moment, the producer had an answer, and whether the worker started an operation."""
        starts = bench.journal.entries("start")
        started = any(each.pid == self.worker.pid and each.at_ns > since_ns for each in starts)
        return self.producer.last_ns > since_ns, started


def test_a_hole_in_either_direction_ends_every_call_in_time_and_work_resumes_after_it(
    bench: Bench, figures: Figures, full: bool
) -> None:
    """What was sent into the hole arrives when it heals, though its sender has long given up."""
    hole_s = 10.0 if full else 3.0
    timeout_s, retries = hole_s / 4, 1
    with contextlib.ExitStack() as proxies:
        with contextlib.ExitStack() as producers:
            lanes = []
            for name in ("up", "down", "both"):
                proxy = proxies.enter_context(Proxy(bench.server.url))
                worker = bench.start_worker(url=proxy.url, queues=[name], lease=2 * hole_s)
                producer = Producer(
                    proxy.url, bench.prefix, name, connection_timeout=timeout_s, max_connection_retries=retries
                )
                lanes.append(Lane(name, proxy, worker, producers.enter_context(producer)))
            wait_until(lambda: all(all(lane.moved(bench, 0)) for lane in lanes), f"all work\n{bench.logs()}", 10.0)
            for lane in lanes:
                lane.proxy.hold(up=lane.name != "down", down=lane.name != "up")
            time.sleep(hole_s)  # the hole itself
            late_ns = time.monotonic_ns() - int(1e9)
            silent = [lane.name for lane in lanes if not any(lane.moved(bench, late_ns))]
            for lane in lanes:
                lane.proxy.heal()
            healed_ns = time.monotonic_ns()
            recovery_s = [
                wait_until(lambda: all(lane.moved(bench, healed_ns)), f"{lane.name}\n{bench.logs()}", RESUMED_WITHIN_S)  # noqa: B023
                for lane in lanes
            ]
        bench.wait_drained(2 * hole_s + 20.0)

    acknowledged = {each for lane in lanes for each in lane.producer.acknowledged}
    unknown = {each for lane in lanes for each in lane.producer.refused}
    ended, longest_s = bench.journal.count("end").keys(), max(lane.producer.longest_s for lane in lanes)
    figures(
        injected=len(lanes), lost=len(acknowledged - ended), repeated=bench.journal.repeats(),
        recovery_s=[round(each, 2) for each in recovery_s], longest_call_s=round(longest_s, 2),
        outcome_unknown=len(unknown), of_those_ran=len(unknown & ended),
        ghosts_released=sum(lane.worker.log.count(GHOSTS) for lane in lanes),
    )  # fmt: skip
    assert silent == ["up", "down", "both"]
    assert acknowledged <= ended <= acknowledged | unknown
    assert bench.journal.repeats() == 0
    assert {type(error) for lane in lanes for error in lane.producer.errors} == {ServerUnreachableError}
    assert longest_s <= (1 + retries) * 2 * timeout_s + 1.0


def test_a_settlement_that_arrives_late_changes_nothing(bench: Bench, figures: Figures) -> None:
    """A hole held it while the same settlement, and then the next one, went another way."""
    with (
        Proxy(bench.server.url) as proxy,
        managing(proxy.url, bench.prefix, connection_timeout=0.2) as held,
        managing(bench.server.url, bench.prefix) as free,
    ):
        commands, run = free.config.commands, free.config.transport.run
        item = b'{"operation_id":"%b","processor":"p"}'
        new = [NewOperation(name, item % name.encode()) for name in ("fails", "succeeds")]
        run(commands.enqueue("normal:late", "nonce", new, dedup_ttl_ms=60_000))
        assert held.config.transport.run(commands.beat("register", W, 60_000)).alive
        claimed = run(commands.claim(W, "c1", 2))
        assert claimed is not None
        record, callback = "failed\t\t1\tnormal:late\t\t1\t0\t0\tw\n", b"normal:late\n" + item % b"fails"
        failing = pack(("fail", 60_000, 1, claimed.first_token, "fails", record, "", callback, b"{}"))
        other = pack(("complete", 60_000, 1, claimed.first_token + 1, "succeeds", record, "", ""))
        first, second = commands.settle(W, "s1", failing, 9), commands.settle(W, "s2", other, 8)

        proxy.hold(up=True)
        with pytest.raises(ServerUnreachableError):
            held.config.transport.run(first, retries=0)
        assert [run(first), run(second)] == [b"d", b"d"]
        proxy.heal()
        wait_until(lambda: proxy.links == 0, "the held settlement has arrived", 5.0)
        for _ in range(2):  # by the second answer, the server has read what came before
            bench.client.ping()
    figures(injected=1, repeated=len(bench.letters("failures")) - 1)
    assert len(bench.letters("failures")) == bench.counter("failed") == 1


def test_idle_connections_that_are_half_open_are_noticed_and_their_work_runs_once(
    bench: Bench, figures: Figures, full: bool
) -> None:
    """One worker's connection is gone; the other's goes on at the server, which claims, but nothing returns.

    An operation that is due soon makes the idle worker block shorter than its 5 s, which the full form waits out.
    """
    with Proxy(bench.server.url) as gone, Proxy(bench.server.url) as mute:
        proxies = {"gone": gone, "mute": mute}
        for name, proxy in proxies.items():
            bench.start_worker(url=proxy.url, queues=[name], lease=15.0)
            wait_until(lambda: proxy.seen["BZPOPMIN"] >= 1, f"{name} blocks", 5.0)  # noqa: B023
        ids: list[str] = []
        if not full:
            ids += [each for name in proxies for each in soon_due(bench, name)]
            wait_until(lambda: min(p.seen["BZPOPMIN"] for p in proxies.values()) >= 2, "both block again", 5.0)
        assert gone.half_open(server_learns=True) == 1
        assert mute.half_open(server_learns=False) == 1
        broken_ns = time.monotonic_ns()
        for name in proxies:
            ids += bench.enqueue(5, processors.work, 0.0, name=f"late-{name}", queue_name=name)
        bench.wait_drained(LONGEST_BLOCK_S + 5.0)

    starts = bench.journal.entries("start")
    noticed_s = {
        name: round(max((e.at_ns - broken_ns) / 1e9 for e in starts if e.operation_id.startswith(f"late-{name}")), 2)
        for name in proxies
    }
    each_ran_once(bench, figures, ids, injected=2, recovery_s=noticed_s)
    assert max(noticed_s.values()) <= LONGEST_BLOCK_S + 5.0


def soon_due(bench: Bench, queue: str) -> list[str]:
    """Enqueue an operation that is due in 1.5 s, and return its id."""
    return bench.enqueue(1, processors.work, 0.0, name=f"due-{queue}", queue_name=queue, delay=1.5)


SHAPES = {
    "late by 0 to 400 ms": (Shape(delay_s=(0.0, 0.4)), 30, 2_000),
    "in slices of 1 byte": (Shape(slice_bytes=1), 150, 5_000),
    "at 10 kB per s": (Shape(bytes_per_s=10_000.0), 60, 2_000),
}


def test_a_reply_that_is_under_way_for_some_beats_makes_no_ghosts(bench: Bench, figures: Figures) -> None:
    """About 9 kB at 10 kB per s, with a beat every 250 ms."""
    ids = bench.enqueue(40, processors.work, 0.01)
    with Proxy(bench.server.url) as proxy:
        proxy.delay(Shape(bytes_per_s=10_000.0))
        worker = bench.start_worker(url=proxy.url, slots=40, lease=1.0, ready=False)
        wait_until(lambda: bench.counter("processed") == len(ids) or GHOSTS in worker.log, "they end, or fail", 20.0)
    ghosts = worker.log.count(GHOSTS)
    figures(injected=1, repeated=bench.journal.repeats(), ghosts_released=ghosts)
    assert ghosts == bench.journal.repeats() == 0


def test_a_reply_that_takes_longer_than_the_connection_timeout_is_awaited(bench: Bench, figures: Figures) -> None:
    """About 30 kB at 10 kB per s: nothing is given up as long as bytes pass, and the log tells that they do."""
    large = {"id": "large", "seconds": 0.0, "padding": "x" * 25_000}
    bench.manager.enqueue(large, processors.work, operation_id="large")
    with Proxy(bench.server.url) as proxy:
        proxy.delay(Shape(bytes_per_s=10_000.0))
        worker = bench.start_worker(url=proxy.url, lease=8.0, ready=False)
        drained_s = bench.wait_drained(20.0)
        log = worker.log  # before the proxy closes the connection
    figures(injected=1, repeated=bench.journal.repeats(), recovery_s=round(drained_s, 2))
    assert bench.journal.count("start") == {"large": 1}
    assert "a turn took long" in log
    assert "server trouble" not in log


@pytest.mark.parametrize("single", [False, True], ids=["a worker", "a single item"])
async def test_a_first_claim_may_take_longer_than_the_lease_to_arrive(bench: Bench, single: bool) -> None:
    """About 200 kB at 50 kB per s: a worker shows that it lives before it claims, and nobody takes over."""
    count = 1 if single else 5
    for number in range(count):
        large = {"id": str(number), "seconds": 0.0, "padding": "x" * (200_000 // count)}
        bench.manager.enqueue(large, processors.work, queue_name="large")
    watching = bench.start_worker(queues=["none"], lease=SLOW_LEASE_S)
    with Proxy(bench.server.url) as proxy:
        proxy.delay(Shape(bytes_per_s=50_000.0))
        if single:
            config = QueueConfig(redis_url=proxy.url, queue_prefix=bench.prefix, lease_seconds=SLOW_LEASE_S)
            ran: list[object] = []
            config.register_callback(ran.append, "work", processors.work.__module__)
            assert await QueueWorker(config, queues=["large"])._process_queue_item(0)
            assert len(ran) == 1
        else:
            bench.start_worker(url=proxy.url, slots=5, queues=["large"], lease=SLOW_LEASE_S, ready=False)
            await asyncio.to_thread(bench.wait_drained, 30.0)
            assert bench.journal.count("start") == dict.fromkeys(map(str, range(count)), 1)
    assert bench.counter("processed") == count
    assert bench.counter("reclaimed") == 0, watching.log


def test_what_is_booked_on_a_worker_that_knows_nothing_of_it_goes_back(bench: Bench, figures: Figures) -> None:
    """A claim whose sender gave it up is run late; the next answer, with values or not, proves it unknown."""
    worker = bench.start_worker(queues=["served"], lease=1.0)
    bench.wait_idle(1)
    bench.enqueue(1, processors.work, 0.0, queue_name="other")
    commands, run = bench.config.commands, bench.config.transport.run
    claimed = run(commands.claim(worker.incarnation, "c0", 1, ["other"]))
    assert claimed is not None
    assert len(claimed.values) == 1
    bench.client.zadd(f"{bench.prefix}wake:served", {"r": 0})
    recovery_s = wait_until(lambda: bench.client.llen(f"{bench.prefix}normal:other") == 1, "it is handed back", 5.0)
    figures(injected=1, lost=0, repeated=0, recovery_s=round(recovery_s, 2))
    assert GHOSTS in worker.log
    assert worker.stop().get("lease_lost", 0) == 0


def test_slow_and_narrow_networks_cost_no_lease_and_repeat_nothing(bench: Bench, figures: Figures, full: bool) -> None:
    """A worker without any trouble watches whether the others show that they live."""
    watching = bench.start_worker(queues=["none"], lease=NARROW_LEASE_S)
    with contextlib.ExitStack() as stack:
        ids: list[str] = []
        workers = [watching]
        for number, (shape, few, many) in enumerate(SHAPES.values()):
            proxy = stack.enter_context(Proxy(bench.server.url, seed=number))
            proxy.delay(shape)
            queue = f"shape-{number}"
            ids += bench.enqueue(many if full else few, processors.work, 0.005, name=queue, queue_name=queue)
            workers.append(bench.start_worker(url=proxy.url, queues=[queue], lease=NARROW_LEASE_S, ready=False))
        drained_s = bench.wait_drained(1800.0 if full else 30.0)
        for worker in workers[1:]:
            worker.wait_ready()
        metrics: list[dict[str, Any]] = [worker.stop() for worker in workers]

    lease_lost = [each.get("lease_lost", 0) for each in metrics]
    told = {"reclaimed": bench.counter("reclaimed"), "drained_s": round(drained_s, 2)}
    each_ran_once(bench, figures, ids, injected=len(SHAPES), leases_lost=sum(lease_lost), **told)
    assert sum(lease_lost) == bench.counter("reclaimed") == 0
