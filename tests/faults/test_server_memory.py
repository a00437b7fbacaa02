"""A server without memory or disk left: nothing new comes in, and nothing that is in is lost.

A disk counts as full when the server's files may grow no further (RLIMIT_FSIZE), which needs no file system of its own.
Not tested: memory that the operating system refuses to a server below its maxmemory; the server then dies.
"""

from __future__ import annotations

import contextlib
import resource
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from queue_system import QueueRetryConfig, ServerFullError
from tests.faults.conftest import Figures, OpenBench, each_ran_once
from tests.faults.support import processors
from tests.faults.support.bench import Bench
from tests.faults.support.servers import (
    answer_to_ping,
    contradictions,
    impatient,
    on_each_server_in_full,
    producing,
    snapshot,
    start_workers,
    wait_ended,
    wait_resumed,
)
from tests.kit.servers import OwnServer, server_binary
from tests.kit.waiting import wait_until

LEASE_S = 1.0
LONG_LEASE_S = 10.0
PATIENT = 30
"""Resends with which a producer's call outlasts any outage here."""
LEAST = 1
"""A maxmemory, in bytes, that no server is below: it stays full however much is taken out of it."""
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of a running process")


def fill(bench: Bench) -> list[str]:
    """Enqueue operations of 10 KB each, 50 at a time, until the server refuses them; return those that it took."""
    taken: list[str] = []
    while True:
        ids = [f"big-{len(taken) + i}" for i in range(50)]
        entities = [{"id": each, "seconds": 0.002, "padding": "x" * 10_000} for each in ids]
        before = counts(bench)
        try:
            answers = bench.manager.enqueue_batch(entities, processors.work, operation_id=ids)
        except ServerFullError:
            assert counts(bench) == before, "a refused batch has left something behind"
            return taken
        assert {answer["status"] for answer in answers} == {"queued"}
        taken += ids


def counts(bench: Bench) -> tuple[int, dict[str, Any]]:
    """Return how many keys there are, and the queues as a manager shows them."""
    status = bench.manager.get_queue_status()
    del status["status_time"]
    return int(bench.client.dbsize()), status


def refusals(bench: Bench) -> int:
    """Return how many commands the server has refused for want of memory, inside scripts or not."""
    errors = bench.client.info("errorstats")
    return int(errors.get("errorstat_OOM", {"count": 0})["count"])


@on_each_server_in_full
def test_a_full_server_refuses_operations_whole_and_everything_that_it_holds_goes_on_to_its_end(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None
) -> None:
    """Claims, settlements of every kind, beats, registrations, a reclaim and forgotten scripts: none is refused."""
    maxmemory = "64mb" if full else "8mb"
    bench = open_bench(binary=binary, maxmemory=maxmemory, maxmemory_policy="noeviction")
    twice = QueueRetryConfig(max_attempts=2, delays=[0.05])
    late = bench.enqueue(
        4, processors.work, 9.0, name="late", timeout=0.05, retry_config=twice, on_failure=processors.on_failure
    )
    held = bench.enqueue(4, processors.work, 2 * LEASE_S, name="held", on_success=processors.on_success)
    due = bench.enqueue(4, processors.work, 0.0, name="due", delay=0.5)
    big = fill(bench)
    bench.client.config_set("maxmemory", LEAST)
    bench.client.script_flush()
    refused_before = refusals(bench)

    victim = bench.start_worker(lease=LEASE_S)
    wait_until(lambda: len(bench.in_flight(victim.incarnation)) > 2, "the victim is busy", 5.0)
    victim.kill()
    others = start_workers(bench, 2, lease=LEASE_S)
    bench.wait_drained(60.0)
    wait_until(lambda: len(bench.incarnations()) == 2, "the victim's entry is gone", 5 * LEASE_S)
    refused = refusals(bench) - refused_before
    with pytest.raises(ServerFullError):
        bench.enqueue(1, processors.work, 0.0, name="refused")
    bench.client.config_set("maxmemory", maxmemory)
    new = bench.enqueue(1, processors.work, 0.0, name="new")
    ran_s = wait_ended(bench, new, 5.0)

    ended, reclaimed = set(bench.journal.count("end")), bench.counter("reclaimed")
    lost = {*held, *due, *big, *new} - ended
    figures(
        injected=1, lost=len(lost), repeated=bench.journal.repeats(), recovery_s=round(ran_s, 2), held=len(big),
        refused=refused, reclaimed=reclaimed,
    )  # fmt: skip
    assert refused == 0
    assert reclaimed > 0
    assert not lost
    assert {letter["operation_id"] for letter in bench.letters("failures")} == set(late)
    assert set(bench.journal.count("failure")) == set(late)
    assert set(bench.journal.count("success")) == set(held)
    assert not any("ServerFullError" in worker.log for worker in others)
    bench.wait_drained(5.0)
    assert not contradictions(snapshot(bench.server))


@contextlib.contextmanager
def full_disk(server: OwnServer) -> Iterator[None]:
    """Let the server's append-only file grow by no more than a few bytes."""
    (log,) = server.folder.glob("appendonlydir/*.incr.aof")
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (log.stat().st_size + 2000, hard))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))


def told_by_errors(binary: Path | None, folder: Path) -> Path:
    """Return a server that learns of a file's limit by an error, as it does of a full disk, not by a signal."""
    script = folder / "server"
    script.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {shlex.quote(str(binary or server_binary()))} \"$@\"\n")
    script.chmod(0o700)
    return script


@needs_linux
@on_each_server_in_full
def test_a_full_disk_refuses_new_operations_whole_and_loses_and_repeats_none(
    open_bench: OpenBench, figures: Figures, full: bool, binary: Path | None, tmp_path: Path
) -> None:
    """With `appendfsync everysec` the server answers MISCONF, and takes writes again once there is space."""
    bench = open_bench(binary=told_by_errors(binary, tmp_path), appendfsync="everysec")
    workers = start_workers(bench, 2, lease=LONG_LEASE_S)
    rounds = 5 if full else 1
    acknowledged, recovery_s = [], []
    with producing(bench) as producer:
        for number in range(rounds):
            acknowledged += bench.enqueue(400, processors.work, 0.02, name=f"before-{number}")
            wait_until(lambda: len(bench.all_in_flight()) > 4, "work is under way", 5.0)
            refused = len(producer.refused)
            with full_disk(bench.server):
                wait_until(lambda: len(producer.refused) > refused + 10, "new operations are refused", 10.0)  # noqa: B023
            healed_ns = time.monotonic_ns()
            wait_until(lambda: "MISCONF" not in write_once(bench), "the server writes again", 5.0)
            recovery_s.append(wait_resumed(bench, workers, healed_ns))
    bench.wait_drained(15.0)

    told = {"recovery_s": max(recovery_s), "refused": len(producer.refused)}
    each_ran_once(bench, figures, acknowledged + producer.acknowledged, injected=rounds, **told)
    assert producer.kinds == {"ServerFullError"}


def write_once(bench: Bench) -> str:
    """Write a foreign key and return the error's text, or nothing."""
    try:
        bench.client.set("foreign", 1)
    except redis.ResponseError as error:
        return str(error)
    return ""


@needs_linux
@on_each_server_in_full
def test_a_disk_that_fills_up_under_fsync_always_ends_the_server_and_loses_nothing(
    open_bench: OpenBench, figures: Figures, binary: Path | None, tmp_path: Path
) -> None:
    """The server keeps its promise by exiting before it answers; started again with space, it goes on."""
    bench = open_bench(binary=told_by_errors(binary, tmp_path), appendfsync="always")
    workers = start_workers(bench, 2, lease=LONG_LEASE_S)
    acknowledged = bench.enqueue(400, processors.work, 0.02, name="before")
    with producing(bench, retries=PATIENT) as producer:
        wait_until(lambda: len(bench.all_in_flight()) > 4, "work is under way", 5.0)
        with contextlib.suppress(ProcessLookupError), full_disk(bench.server):  # there is no limit to lift at its end
            watch = impatient(bench.server)
            wait_until(lambda: "ConnectionError" in answer_to_ping(watch), "the server has ended", 10.0)
            watch.close()
        bench.server.kill()
        bench.server.start()
        recovery_s = wait_resumed(bench, workers, time.monotonic_ns())
    bench.wait_drained(15.0)

    each_ran_once(bench, figures, acknowledged + producer.acknowledged, injected=1, recovery_s=recovery_s)
    assert producer.errors == []
