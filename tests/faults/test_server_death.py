"""A server that dies, comes back, forgets or refuses: workers carry on, and producers learn it in bounded time.

Not tested, for want of a file system or device that can be told to do so: a power cut that takes what was not synced
yet, and a kill while an fsync stalls, when `appendfsync everysec` holds even the write back. Nor is a server whose
clock jumps.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from pathlib import Path
from typing import Self

import redis

from queue_system import QueueConfig, QueueManager
from queue_system.errors import CircuitOpenError, ServerUnreachableError
from queue_system.testing.proxy import Proxy, What
from tests.faults.conftest import Figures, OpenBench, each_ran_once
from tests.faults.support import processors
from tests.faults.support.servers import (
    BACK_AT_WORK_WITHIN_S,
    answer_to_ping,
    impatient,
    on_each_server_in_full,
    producing,
    start_workers,
    wait_resumed,
)
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import wait_until

LEASE_S = 2.0
OUTAGE_S = 3.0
LONGEST_CALL_S = 5.0
NEW_ITEMS_RUN_WITHIN_S = 2.0
PATIENT = 30
"""Resends with which a producer's call outlasts any outage here."""
FLUSH_EVERY_S = 0.01


class ScriptFlusher(threading.Thread):
    """Makes a server forget all scripts every 10 ms, and goes on when it is back."""

    def __init__(self, server: OwnServer) -> None:
        super().__init__(daemon=True)
        self.flushes = 0
        self._client = impatient(server)
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(10.0)
        self._client.close()

    def run(self) -> None:
        while not self._over.wait(FLUSH_EVERY_S):
            with contextlib.suppress(redis.RedisError):
                self._client.script_flush()
                self.flushes += 1


def test_a_killed_server_loses_nothing_and_workers_carry_on_when_it_is_back(
    open_bench: OpenBench, figures: Figures
) -> None:
    bench = open_bench(appendonly="yes", appendfsync="always")
    ids = bench.enqueue(2000, processors.work, 0.02)
    workers = [bench.start_worker(lease=LEASE_S) for _ in range(2)]
    with producing(bench) as producer:
        wait_until(lambda: len(bench.journal.entries("end")) > 300, "work is under way", 10.0)
        bench.server.kill()
        time.sleep(OUTAGE_S)
        bench.server.start()
        back_ns = time.monotonic_ns()
        resumed_s = [
            wait_until(
                lambda: any(e.pid == w.pid and e.at_ns > back_ns for e in bench.journal.entries("start")),  # noqa: B023
                f"worker {w.pid} is back at work\n{w.log}",
                BACK_AT_WORK_WITHIN_S,
            )
            for w in workers
        ]
    bench.wait_drained(12.0)

    acknowledged = {*ids, *producer.acknowledged}
    ended = set(bench.journal.count("end"))
    figures(
        lost=len(acknowledged - ended), repeats=bench.journal.repeats(), resumed_s=[round(s, 2) for s in resumed_s],
        acknowledged=len(acknowledged), refused=len(producer.refused), errors=sorted(producer.kinds),
        longest_call_s=round(producer.longest_s, 2), reclaimed=bench.counter("reclaimed"),
    )  # fmt: skip
    assert acknowledged <= ended
    assert ended <= acknowledged | set(producer.refused)
    assert bench.journal.repeats() == 0
    assert producer.kinds == {ServerUnreachableError.__name__, CircuitOpenError.__name__}
    assert producer.longest_s <= LONGEST_CALL_S
    assert bench.counter("processed") == len(ended)


def test_flushall_while_idle_makes_workers_register_again_and_run_new_items(
    open_bench: OpenBench, figures: Figures
) -> None:
    bench = open_bench()
    workers = [bench.start_worker(slots=2, lease=LEASE_S) for _ in range(2)]
    bench.enqueue(20, processors.work, 0.01)
    bench.wait_drained(5.0)
    waiting = bench.wait_idle(2)
    bench.client.flushall()
    registered_s = wait_until(lambda: len(bench.incarnations()) == 2, "both have registered again", LEASE_S)
    assert bench.blocked() == waiting, "a connection that is given up can take the wake-up of the new ones along"
    ids = bench.enqueue(20, processors.work, 0.01, name="new")
    ran_s = wait_until(lambda: set(ids) <= set(bench.journal.count("end")), f"the new ones ran\n{bench.logs()}", 12.0)
    figures(registered_again_s=round(registered_s, 2), new_items_ran_s=round(ran_s, 2))
    assert ran_s <= NEW_ITEMS_RUN_WITHIN_S
    assert bench.journal.repeats() == 0
    assert all(worker.alive for worker in workers)


@on_each_server_in_full
def test_a_server_killed_again_and_again_loses_nothing_and_repeats_nothing(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None
) -> None:
    """It holds for both ways of syncing: a kill leaves what was written to the system that writes it to the disk."""
    bench = open_bench(binary=binary)
    workers = start_workers(bench, 2, lease=LEASE_S)
    kills = 20 if full else 2
    moments = random.Random(1)
    acknowledged: set[str] = set()
    recovery_s = []
    for policy in ("always", "everysec"):
        with producing(bench, label=policy, retries=PATIENT) as producer:
            for kill in range(kills):
                bench.client.config_set("appendfsync", policy)
                acknowledged.update(bench.enqueue(200, processors.work, 0.05, name=f"{policy}-{kill}"))
                time.sleep(moments.uniform(0.0, 0.3))  # the random moment itself
                wait_until(lambda: not bench.client.info("persistence")["aof_pending_bio_fsync"], "no fsync runs", 5.0)
                bench.server.kill()
                bench.server.start()
                recovery_s.append(wait_resumed(bench, workers, time.monotonic_ns()))
        acknowledged.update(producer.acknowledged)
        assert producer.errors == []
    bench.wait_drained(15.0)

    told = {"acknowledged": len(acknowledged), "reclaimed": bench.counter("reclaimed")}
    each_ran_once(bench, figures, acknowledged, injected=2 * kills, recovery_s=max(recovery_s), **told)
    assert bench.counter("reclaimed") == 0


class TextLost(Proxy):
    """Loses the first request that carries a script's text."""

    def kept(self, what: What, command: str, message: bytes) -> bytes | None:
        if what == "request" and b"\r\nEVAL\r\n" in message[:20] and not self.injected["text"]:
            self.injected["text"] += 1
            return b""
        return None


def test_a_connection_lost_between_a_forgotten_script_and_its_text_is_bridged_as_any_other(
    start_server: StartServer,
) -> None:
    with TextLost(start_server().url) as proxy:
        config = QueueConfig(redis_url=proxy.url)
        with contextlib.closing(config.transport):
            assert QueueManager(config).enqueue({"id": "x"}, processors.work)["status"] == "queued"
        assert proxy.injected["text"] == 1


@on_each_server_in_full
def test_scripts_forgotten_every_10_ms_and_by_restarts_surface_no_error(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None
) -> None:
    """Neither a producer, alone or with a batch of several requests, nor an operation notices."""
    bench = open_bench(binary=binary)
    workers = start_workers(bench, 2, lease=LEASE_S)
    restarts = 20 if full else 2
    acknowledged = []
    with ScriptFlusher(bench.server) as flusher, producing(bench, retries=PATIENT) as producer:
        for restart in range(restarts):
            acknowledged += bench.enqueue(1100, processors.work, 0.01, name=f"batch-{restart}")
            bench.server.restart()
            wait_resumed(bench, workers, time.monotonic_ns())
    bench.wait_drained(15.0)

    letters = bench.letters("failures") + bench.letters("system_errors")
    told = {"restarts": restarts, "letters": len(letters)}
    each_ran_once(bench, figures, acknowledged + producer.acknowledged, injected=flusher.flushes, **told)
    assert flusher.flushes > restarts
    assert producer.errors == []
    assert letters == []
    assert bench.counter("failed") == bench.counter("retried") == 0
    assert not any("NOSCRIPT" in worker.log for worker in workers)


@on_each_server_in_full
def test_a_server_that_loads_for_longer_than_a_lease_is_waited_for_and_costs_no_lease(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None
) -> None:
    """While it loads it answers every command with LOADING."""
    bench = open_bench(binary=binary, key_load_delay="200")
    workers = start_workers(bench, 2, lease=1.0)
    with bench.client.pipeline(transaction=False) as filling:
        for number in range(40_000 if full else 6_000):
            filling.set("filling", number)
        filling.execute()
    acknowledged = bench.enqueue(600, processors.work, 0.02)
    wait_until(lambda: len(bench.journal.entries("end")) > 50, "work is under way", 10.0)
    with contextlib.closing(impatient(bench.server)) as watch, producing(bench, retries=PATIENT) as producer:
        bench.server.kill()
        loader = threading.Thread(target=bench.server.start)
        loader.start()
        down_at = time.monotonic()
        wait_until(lambda: "BusyLoading" in answer_to_ping(watch), "the server says that it loads", 5.0)
        loader.join()
        back_ns, down_s = time.monotonic_ns(), time.monotonic() - down_at
        recovery_s = wait_resumed(bench, workers, back_ns)
        before = len(producer.acknowledged)
        wait_until(lambda: len(producer.acknowledged) > before, "the producer goes on", BACK_AT_WORK_WITHIN_S)
    bench.wait_drained(15.0)

    told = {"recovery_s": recovery_s, "down_s": round(down_s, 1)}
    each_ran_once(bench, figures, acknowledged + producer.acknowledged, injected=1, **told)
    assert down_s > 1.0, "it loaded for less than a lease; the fault was not injected"
    assert producer.errors == []
    assert bench.counter("reclaimed") == 0
