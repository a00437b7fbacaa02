"""A server that stands still, stops taking writes or becomes a replica: no lease is lost to it, and all is done once.

Not tested, for want of a way to inject it here: a disk that stalls (LazyFS or a slow device), and a server whose clock
jumps.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from queue_system import QueueConfig
from queue_system.broker.commands import SCRIPTS
from queue_system.maintenance.reclaimer import Reclaimer
from tests.faults.conftest import Figures, OpenBench, each_ran_once
from tests.faults.support import processors
from tests.faults.support.bench import Bench
from tests.faults.support.servers import (
    BACK_AT_WORK_WITHIN_S,
    answer_to_ping,
    impatient,
    on_each_server_in_full,
    producing,
    start_workers,
    wait_ended,
    wait_resumed,
)
from tests.kit.servers import OwnServer, StartServer, frozen
from tests.kit.waiting import wait_until
from tests.scripts.support import Broker

PATIENT = 30
LONG_LEASE_S = 10.0
IDLE_CALLS_PER_S = 100
NO_PRIMARY = ("127.0.0.1", 1)


def freeze(server: OwnServer, seconds: float) -> None:
    """Stop the process as a debugger or a suspended machine does."""
    with frozen(server):
        time.sleep(seconds)


def keep_busy(server: OwnServer, seconds: float) -> None:
    """Let a foreign client run a script without end, then kill that."""

    def run_endless_script(client: redis.Redis) -> None:
        with contextlib.suppress(redis.ResponseError):  # how it learns that it was killed
            client.execute_command("EVAL", "while true do end", 0)

    with contextlib.closing(impatient(server, socket_timeout=None)) as foreign, impatient(server) as watch:
        watch.ping()
        script = threading.Thread(target=run_endless_script, args=(foreign,))
        script.start()
        wait_until(lambda: "BUSY" in answer_to_ping(watch), "the server says that it is busy", 5.0)
        time.sleep(seconds)
        watch.script_kill()
        script.join()


def pause(server: OwnServer, seconds: float, what: str = "ALL") -> None:
    """Let the server put off the commands of all clients, or their writes, and wait until it answers writes again."""
    with contextlib.closing(impatient(server, socket_timeout=None)) as client:
        client.execute_command("CLIENT", "PAUSE", int(seconds * 1000), what)
        client.set("foreign", 1)


STALLS: dict[str, Callable[[OwnServer, float], None]] = {"frozen": freeze, "busy": keep_busy, "paused": pause}


@pytest.mark.parametrize("stall", STALLS)
@on_each_server_in_full
def test_a_server_that_stands_still_for_two_leases_costs_no_lease_and_repeats_nothing(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None, stall: str
) -> None:
    """What runs meanwhile goes on; busy and idle workers are back at work soon after."""
    lease_s = 3.0 if full else 1.0
    seconds = 20.0 if full and stall == "busy" else 2 * lease_s
    bench = open_bench(binary=binary, lua_time_limit="100")
    stand_still(bench, lambda: STALLS[stall](bench.server, seconds), lease_s, seconds, figures, busy=2 if full else 1)


@on_each_server_in_full
def test_writes_that_are_paused_for_longer_than_two_leases_cost_no_lease_and_repeat_nothing(
    open_bench: OpenBench, figures: Figures, binary: Path | None
) -> None:
    """Reads are answered meanwhile, so everybody seems silent to everybody else."""
    lease_s, seconds = 1.0, 2.5  # so a beat has timed out and queues behind the reclaimer's verdict
    bench = open_bench(binary=binary)
    stand_still(bench, lambda: pause(bench.server, seconds, "WRITE"), lease_s, seconds, figures, busy=1)


def test_a_reclaimer_counts_no_silence_from_before_a_server_answered_again(start_server: StartServer) -> None:
    """Whoever is seen to live by the answer has a whole lease from then on."""
    server, lease_s, other = start_server(), 0.5, "other"
    config = QueueConfig(redis_url=server.url, lease_seconds=lease_s)
    with contextlib.closing(Broker(server, "queue:")) as broker, contextlib.closing(config.transport):
        for incarnation in ("own", other):
            broker.run(broker.commands.beat("register", incarnation, int(lease_s * 1000)))
        reclaimer = Reclaimer(config, config.shard, lambda: "own", broker.now_ms)
        reclaimer.perform()
        look = threading.Thread(target=reclaimer.perform)
        with frozen(server):
            look.start()
            time.sleep(2 * lease_s)  # how long the server stands still
        look.join()
        reclaimer.perform()
        assert other in broker.run(broker.commands.incarnations())


def stand_still(
    bench: Bench, stall: Callable[[], None], lease_s: float, seconds: float, figures: Figures, busy: int
) -> None:
    """Stall a server under some busy workers and an idle one, and judge what became of it."""
    bench.client.script_load(
        SCRIPTS["declare_dead"].source
    )  # as one that has seen a reclaim; it would come late otherwise
    ids = bench.enqueue(4, processors.work, seconds + 0.5, name="long")
    ids += bench.enqueue(400, processors.work, 0.02)
    at_work = [bench.start_worker(ready=False, lease=lease_s, queues=["work"]) for _ in range(busy)]
    (idle,) = start_workers(bench, 1, lease=lease_s, queues=["idle"])
    wait_until(lambda: len(bench.journal.entries("end")) > 50, "work is under way", 10.0)
    with producing(bench, retries=PATIENT) as producer:
        stall()
        recovery_s = wait_resumed(bench, at_work, time.monotonic_ns())
    new = bench.enqueue(5, processors.work, 0.0, name="idle", queue_name="idle")
    idle_s = wait_ended(bench, new, BACK_AT_WORK_WITHIN_S)
    bench.wait_drained(15.0)

    each_ran_once(
        bench, figures, [*ids, *new, *producer.acknowledged], injected=1, recovery_s=recovery_s,
        idle_s=round(idle_s, 2), stalled_s=seconds, reclaimed=bench.counter("reclaimed"),
    )  # fmt: skip
    assert producer.errors == []
    assert bench.counter("reclaimed") == 0
    assert not any("lease lost" in worker.log for worker in (*at_work, idle))
    assert idle.alive


@on_each_server_in_full
def test_a_server_demoted_under_its_workers_is_used_again_once_it_is_promoted(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None
) -> None:
    """Writes are answered with READONLY and blocked clients cut off with UNBLOCKED; nothing is lost or run twice."""
    bench = open_bench(binary=binary)
    busy = [bench.start_worker(ready=False, lease=LONG_LEASE_S, queues=["work"]) for _ in range(2)]
    start_workers(bench, 1, lease=LONG_LEASE_S, queues=["idle"])
    rounds = 10 if full else 1
    acknowledged, recovery_s, idle_s = [], [], []
    with producing(bench, retries=PATIENT) as producer:
        for number in range(rounds):
            acknowledged += bench.enqueue(400, processors.work, 0.02, name=f"busy-{number}")
            wait_until(lambda: len(bench.all_in_flight()) > 4, "work is under way", 5.0)
            bench.client.execute_command("REPLICAOF", *NO_PRIMARY)
            time.sleep(1.0)  # how long it is a replica
            bench.client.execute_command("REPLICAOF", "NO", "ONE")
            recovery_s.append(wait_resumed(bench, busy, time.monotonic_ns()))
            new = bench.enqueue(1, processors.work, 0.0, name=f"idle-{number}", queue_name="idle")
            idle_s.append(wait_ended(bench, new, BACK_AT_WORK_WITHIN_S))
            acknowledged += new
    bench.wait_drained(15.0)

    told = {"recovery_s": max(recovery_s), "idle_s": round(max(idle_s), 2)}
    each_ran_once(bench, figures, acknowledged + producer.acknowledged, injected=rounds, **told)
    assert producer.errors == []


def demote(bench: Bench) -> None:
    """Make the server a replica without a primary: it answers reads and refuses writes."""
    bench.client.execute_command("REPLICAOF", *NO_PRIMARY)


def squat_on_the_marker(bench: Bench) -> None:
    """Put a value of a foreign type where idle workers wait for their wake-up marker, and let them wait anew."""
    bench.client.set(f"{bench.prefix}wake", "squatter")
    bench.client.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("refuse", [demote, squat_on_the_marker])
def test_an_idle_worker_whose_wait_is_refused_does_not_ask_again_without_a_pause(
    open_bench: OpenBench, figures: Figures, refuse: Callable[[Bench], None]
) -> None:
    bench = open_bench()
    start_workers(bench, 1, lease=LONG_LEASE_S)
    bench.wait_idle(1)
    refuse(bench)
    before = calls_of_scripts(bench), connections(bench)
    time.sleep(1.0)  # the second that is counted
    calls, connected = calls_of_scripts(bench) - before[0], connections(bench) - before[1]
    bench.client.execute_command("REPLICAOF", "NO", "ONE")
    figures(calls_per_s=calls, connections_per_s=connected)
    assert calls <= IDLE_CALLS_PER_S
    assert connected <= IDLE_CALLS_PER_S


def calls_of_scripts(bench: Bench) -> int:
    """Return how many scripts the server has been asked for by hash."""
    return int(bench.client.info("commandstats")["cmdstat_evalsha"]["calls"])


def connections(bench: Bench) -> int:
    return int(bench.client.info("stats")["total_connections_received"])
