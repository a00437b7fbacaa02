"""What an operation costs where turns are small: few slots, and work that takes some time. Never decides how often."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final, Self

import redis

from benchmarks.measures import Bench, Figures
from benchmarks.processes import Running, SilentError
from benchmarks.roster import REGIMES
from benchmarks.servers import Snapshot

_JOB_S: Final = 0.020
"""How long a job takes on average, as `contestants/protocol.py` has it."""
_WARM_S: Final = 0.5
_QUIET_S: Final = 1.0
_READY_WITHIN_S: Final = 30.0
_TRICKLE_GAP_MS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What server and workers had used up to a moment."""

    at: float
    server: Snapshot
    workers_s: float
    jobs: int

    @classmethod
    def take(cls, client: redis.Redis, workers: Sequence[Running]) -> Self:
        """Ask them."""
        server = Snapshot.take(client)
        jobs = sum(worker.jobs for worker in workers)
        return cls(time.monotonic(), server, sum(worker.cpu_s for worker in workers), jobs)

    def since(self, earlier: Self) -> Figures:
        """Return what was used since then: µs of the server and of the workers, commands, and the time in s."""
        return {
            "server_us": (self.server.cpu_s - earlier.server.cpu_s) * 1e6,
            "commands": float(self.server.commands - earlier.server.commands),
            "worker_us": (self.workers_s - earlier.workers_s) * 1e6,
            "s": self.at - earlier.at,
        }


def jitter(bench: Bench, regime: str, seconds: float) -> Figures:
    """Let workers run jobs of 5 to 35 ms for some seconds, more waiting than they can take; return the cost of a job.

    That is processor time of the server and of the workers in µs, and commands executed, in scripts too. What idle
    workers cost is subtracted.
    """
    workers, slots = REGIMES[regime]
    jobs = int(workers * slots / _JOB_S * (seconds + 4 * _WARM_S))
    bench.empty()
    bench.fill(jobs, sync=False, kind="jitter")
    with ExitStack() as started, closing(bench.server.client()) as client:
        running = [started.enter_context(bench.start("work", kind="jitter", slots=slots)) for _ in range(workers)]
        for worker in running:
            worker.hear("some", within_s=_READY_WITHIN_S)
        time.sleep(_WARM_S)
        begin = Spent.take(client, running)
        time.sleep(seconds)
        end = Spent.take(client, running)
        _wait_until_quiet(running, bench.limit_s)
        idle_from = Spent.take(client, running)
        time.sleep(seconds)
        idle = Spent.take(client, running).since(idle_from)
    done = end.jobs - begin.jobs
    return {"rate": done / (end.at - begin.at), **_per_job(end.since(begin), idle, done)}


def trickle(bench: Bench, seconds: float) -> Figures:
    """Send a job every 20 ms to an idle worker; return what one costs, enqueue included, and the p50 to its start."""
    jobs = int(seconds * 1000 / _TRICKLE_GAP_MS)
    bench.empty()
    with ExitStack() as started, closing(bench.server.client()) as client:
        worker = started.enter_context(bench.start("work", count=jobs, kind="timed"))
        bench.send(count=1, kind="warm")
        worker.hear("warm", within_s=_READY_WITHIN_S)
        time.sleep(2 * _WARM_S)
        idle_from = Spent.take(client, [worker])
        time.sleep(seconds)
        begin = Spent.take(client, [worker])
        idle = begin.since(idle_from)
        bench.send(count=jobs, kind="timed", gap_ms=_TRICKLE_GAP_MS)
        said = worker.hear("done", within_s=_READY_WITHIN_S)
        time.sleep(_WARM_S)
        end = Spent.take(client, [worker])
    return {"p50_ms": said["p50"], **_per_job(end.since(begin), idle, jobs)}


def rest(bench: Bench, seconds: float) -> Figures:
    """Let a worker idle, and return what that costs in a second; commands in scripts count, too."""
    bench.empty()
    with ExitStack() as started, closing(bench.server.client()) as client:
        worker = started.enter_context(bench.start("work", kind="timed"))
        bench.send(count=1, kind="warm")
        worker.hear("warm", within_s=_READY_WITHIN_S)
        time.sleep(4 * _WARM_S)
        begin = Spent.take(client, [worker])
        time.sleep(seconds)
        spent = Spent.take(client, [worker]).since(begin)
    return {part: spent[part] / spent["s"] for part in ("server_us", "commands", "worker_us")}


def _per_job(spent: Figures, idle: Figures, jobs: int) -> Figures:
    share = spent["s"] / idle["s"]
    return {part: (spent[part] - share * idle[part]) / jobs for part in ("server_us", "commands", "worker_us")}


def _wait_until_quiet(workers: Sequence[Running], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    told = -1
    while (now := sum(worker.jobs for worker in workers)) != told:
        if time.monotonic() > deadline:
            raise SilentError(f"{workers[0].name}: jobs are left after {within_s:.0f} s")
        told = now
        time.sleep(_QUIET_S)
