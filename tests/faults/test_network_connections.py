"""Connections that are killed, refused, denied or cancelled: clients come back, and nothing is crossed or lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from pathlib import Path
from typing import Any

import pytest

from queue_system import QueueConfig, QueueWorker
from queue_system.broker.aio import AioTransport
from queue_system.broker.protocol import Command, plain
from queue_system.errors import AccessDeniedError
from queue_system.testing.proxy import Proxy
from tests.faults.conftest import Figures, OpenBench, each_ran_once
from tests.faults.support import processors
from tests.faults.support.bench import Bench
from tests.faults.support.producer import Producer, managing
from tests.kit.waiting import eventually, wait_until

LEASE_S = 5.0
BACK_WITHIN_S = 10.0
CONNECTIONS_OF_A_WORKER = 5
"""Its turns, its wait for work, and one for each of its three services at the most."""
TRIES_PER_S = 15
PATIENT = 20
SECRET = "hush-4711"


def test_connections_killed_all_the_time_lose_nothing_and_do_not_pile_up(
    open_bench: OpenBench, figures: Figures, full: bool
) -> None:
    storm_s = 60.0 if full else 3.0
    bench = open_bench()
    workers = [bench.start_worker(lease=LEASE_S) for _ in range(2)]
    most = kills = 0
    with Producer(bench.server.url, bench.prefix, "work", pause_s=0.001, max_connection_retries=PATIENT) as producer:
        wait_until(lambda: len(producer.acknowledged) >= 20, "it produces", 5.0)
        over_at = time.monotonic() + storm_s
        while time.monotonic() < over_at:
            most = max(most, len(bench.client.execute_command("CLIENT LIST")))
            kills += bench.client.execute_command("CLIENT KILL", "TYPE", "normal")
            time.sleep(0.1)  # the time between two storms
        storm_over_ns = time.monotonic_ns()
        recovery_s = wait_until(lambda: producer.last_ns > storm_over_ns, "enqueues go on", BACK_WITHIN_S)
    bench.wait_drained(20.0)

    ids, bound = producer.acknowledged, 2 * CONNECTIONS_OF_A_WORKER + 3
    lease_lost = sum(worker.stop().get("lease_lost", 0) for worker in workers)
    each_ran_once(
        bench, figures, ids, injected=kills, recovery_s=round(recovery_s, 2), acknowledged=len(ids),
        most_connections=most, bound=bound, lease_lost=lease_lost,
    )  # fmt: skip
    assert kills >= 30
    assert producer.errors == []
    assert bench.counter("enqueued") == len(ids)
    assert most <= bound
    assert lease_lost == 0


def echo(text: str) -> Command[bytes]:
    """Build a command whose reply tells whose it is."""
    return plain(bytes, "PING", text)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/dev/fd").iterdir()))


async def test_calls_cancelled_at_any_await_never_cross_their_replies(
    bench: Bench, figures: Figures, full: bool
) -> None:
    """In three of ten cases the next call begins with connecting, and is cancelled there."""
    count, chance = 10_000 if full else 1_000, random.Random(9)
    transport = AioTransport(bench.config.shard.route)
    before = descriptors()
    cancelled = crossed = 0
    for i in range(count):
        texts = [f"{i}-{j}" for j in range(1 + i % 3)]
        call = asyncio.create_task(transport.run(*map(echo, texts)))
        for _ in range(chance.randrange(chance.choice((4, 40)))):
            await asyncio.sleep(0)
        call.cancel()
        try:
            crossed += await call != [text.encode() for text in texts]
        except asyncio.CancelledError:
            cancelled += 1
        if chance.random() < 0.7:
            crossed += await transport.run(echo(f"after-{i}")) != [f"after-{i}".encode()]
    transport.close()
    await asyncio.sleep(0.01)  # the loop closes what was dropped
    left = descriptors() - before
    figures(injected=cancelled, crossed=crossed, descriptors_left=left)
    assert cancelled >= count // 10
    assert crossed == 0
    assert left <= 1


async def briefly(entity: dict[str, Any]) -> None:
    await asyncio.sleep(0.001)


async def cancelled_at_random(work: Any, longest_s: float, chance: random.Random) -> bool:
    """Run a coroutine and cancel it after a random time; tell whether that came before its end."""
    task = asyncio.create_task(work)
    await asyncio.sleep(chance.uniform(0.0, longest_s))  # the random moment itself
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def test_workers_cancelled_at_any_await_keep_nothing_and_settle_nothing_twice(
    bench: Bench, figures: Figures, full: bool
) -> None:
    """What was claimed is settled or handed back; no incarnation stays behind."""
    count, chance = 2_000 if full else 80, random.Random(99)
    config = QueueConfig(redis_url=bench.server.url, queue_prefix=bench.prefix)
    ids = [f"brief-{i}" for i in range(10 * count)]
    with managing(bench.server.url, bench.prefix) as manager:
        manager.enqueue_batch([{"id": each} for each in ids], briefly, operation_id=ids)
    config.register_callback(briefly)
    started = time.monotonic()
    assert await QueueWorker(config)._process_queue_item(0)
    longest_s, cancelled = 1.5 * (time.monotonic() - started), 0
    for _ in range(count):
        cancelled += await cancelled_at_random(QueueWorker(config)._process_queue_item(0), longest_s, chance)
        worker = QueueWorker(config, max_workers=2)
        cancelled += await cancelled_at_random(worker.start(), longest_s / 4, chance)
        await worker.stop()
    await eventually(lambda: not bench.incarnations(), "every incarnation has signed off", LEASE_S)
    config.transport.close()

    waiting, processed = bench.manager.get_queue_status()["total_items"], bench.counter("processed")
    figures(injected=cancelled, lost=len(ids) - processed - waiting, ghosts=len(bench.all_in_flight()), ran=processed)
    assert cancelled >= count // 4
    assert processed + waiting == len(ids)
    assert bench.all_in_flight() == {}
    assert bench.counter("retried") == bench.counter("failed") == bench.counter("reclaimed") == 0


def test_many_clients_are_all_back_soon_after_a_restart(open_bench: OpenBench, figures: Figures, full: bool) -> None:
    """Each client has connections of its own, as a process has."""
    clients = 200 if full else 40
    bench = open_bench()
    workers = [bench.start_worker(lease=15.0) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        producers = [
            stack.enter_context(
                Producer(bench.server.url, bench.prefix, f"c{i}", pause_s=clients / 400, max_connection_retries=PATIENT)
            )
            for i in range(clients)
        ]
        wait_until(lambda: all(len(each.acknowledged) >= 3 for each in producers), "all produce", 30.0)
        bench.server.restart()
        back_ns = time.monotonic_ns()

        def all_back() -> bool:
            running = {each.pid for each in bench.journal.entries("start") if each.at_ns > back_ns}
            return all(each.last_ns > back_ns for each in producers) and running >= {each.pid for each in workers}

        recovery_s = wait_until(all_back, f"all are back\n{bench.logs()}", BACK_WITHIN_S)
    bench.wait_drained(30.0)

    ids = {each for producer in producers for each in producer.acknowledged}
    wait_until(
        lambda: bench.counter("processed") == len(ids), "each is counted, also where it had to be sent again", 10.0
    )
    each_ran_once(
        bench, figures, ids, injected=1, recovery_s=round(recovery_s, 2), clients=clients, acknowledged=len(ids)
    )
    assert [error for producer in producers for error in producer.errors] == []


def test_workers_that_are_refused_for_maxclients_try_seldom_and_come_back(
    open_bench: OpenBench, figures: Figures, full: bool
) -> None:
    """What runs meanwhile is settled afterwards, once."""
    refused_s, names = 10.0 if full else 2.0, ("a", "b", "c")
    bench = open_bench()
    ids = [each for name in names for each in bench.enqueue(5, processors.work, 1.0, name=name, queue_name=name)]
    for name in names:
        bench.start_worker(queues=[name], lease=2 * refused_s)
    wait_until(lambda: len(bench.journal.entries("start")) == len(ids), "all are busy", 5.0)
    bench.client.config_set("maxclients", 1)
    bench.client.execute_command("CLIENT KILL", "TYPE", "normal")
    time.sleep(refused_s)  # the time of refusal itself
    statistics: dict[str, Any] = bench.client.execute_command("INFO", "stats")
    refused = int(statistics["rejected_connections"])
    bench.client.config_set("maxclients", 1000)
    for name in names:
        ids += bench.enqueue(10, processors.work, 0.0, name=f"later-{name}", queue_name=name)
    recovery_s = bench.wait_drained(BACK_WITHIN_S)

    tries_per_s = refused / refused_s / len(names)
    told = {"recovery_s": round(recovery_s, 2), "tries_per_s_and_worker": round(tries_per_s, 1)}
    each_ran_once(bench, figures, ids, injected=refused, **told)
    assert 1 <= tries_per_s <= TRIES_PER_S


def told_of_denial(log: str) -> list[str]:
    return [line for line in log.splitlines() if "server trouble" in line and "AccessDeniedError" in line]


def test_a_user_that_is_switched_off_goes_on_when_it_may_tries_seldom_says_why_and_its_password_is_never_told(
    open_bench: OpenBench, figures: Figures, full: bool
) -> None:
    """What waits meanwhile runs once; tries and lines of the log come at most once a second, the first ones at once."""
    bench, user = open_bench(), ("ACL", "SETUSER", "app")
    bench.client.execute_command(*user, "on", f">{SECRET}", "~*", "&*", "+@all")
    with Proxy(bench.server.url) as proxy:
        url = f"redis://app:{SECRET}@{proxy.address}/0"
        worker = bench.start_worker(url=url, lease=15.0)
        bench.wait_idle(1)
        bench.client.execute_command(*user, "off")
        bench.client.execute_command("CLIENT KILL", "USER", "app")
        ids = bench.enqueue(20, processors.work, 0.0)
        before, began = proxy.seen["AUTH"], time.monotonic()
        time.sleep(30.0 if full else 3.0)  # the time of the denial itself
        wait_until(lambda: told_of_denial(worker.log), "the worker has told of it, however busy the machine is", 60.0)
        tries, lasted = proxy.seen["AUTH"] - before, time.monotonic() - began
        with managing(url, bench.prefix) as manager, pytest.raises(AccessDeniedError) as denied:
            manager.enqueue({"id": "refused"}, processors.work)
        bench.client.execute_command(*user, "on")
        recovery_s = bench.wait_drained(BACK_WITHIN_S)
        worker.stop()

    errors = [line for line in worker.log.splitlines() if " ERROR " in line]
    each_ran_once(
        bench, figures, ids, injected=tries, recovery_s=round(recovery_s, 2), tries_per_s=round(tries / lasted, 1),
        error_lines_per_s=round(len(errors) / lasted, 1),
    )  # fmt: skip
    assert tries <= lasted + 2
    assert len(errors) <= lasted + 2
    assert SECRET not in f"{worker.log} {denied.value!r} {denied.value.__cause__!r}"
    assert any(" ERROR " in line and "check user, password and ACL" in line for line in told_of_denial(worker.log))
