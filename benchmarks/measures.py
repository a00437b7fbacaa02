"""What is measured, the same for every contestant. Never decides how often, nor what the figures mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Running, SilentError
from benchmarks.roster import Contestant
from benchmarks.servers import CommandCount, Snapshot
from tests.kit.servers import OwnServer

Figures = dict[str, float]

_READY_WITHIN_S = 30.0
_EMPTY_WITHIN_S = 300.0
_SETTLE_S = 0.5
_OBSERVED_JOBS = 300_000
_LATENCY_JOBS = 1000  # of 300, the p99 would be the third worst
_LATENCY_GAP_MS = 5.0


@dataclass(frozen=True, slots=True)
class Bench:
    """One contestant on one server. Each measure begins with an empty server and has a limit."""

    contestant: Contestant
    server: OwnServer
    limit_s: float = 120.0
    recovery_limit_s: float = 60.0
    source: Path | None = None
    """The folder from which this queue is imported, instead of what is installed."""

    def empty(self) -> None:
        """Remove all data."""
        with closing(self.server.client(socket_timeout=_EMPTY_WITHIN_S)) as client:
            client.flushall()

    def start(self, role: str, **order: object) -> Running:
        """Start a process of the contestant."""
        return Running(self.contestant, source=self.source, role=role, url=self.server.url, **order)

    def send(self, role: str = "send", **order: object) -> Figures | None:
        """Let the contestant enqueue, and return `seconds` and `jobs`; None if it has no such call."""
        with self.start(role, **order) as sender:
            said = sender.hear("sent", "unable", within_s=self.limit_s)
        return None if said["event"] == "unable" else said

    def fill(self, count: int, *, sync: bool, kind: str = "job") -> None:
        """Enqueue `count` jobs of a kind by the contestant's fastest way."""
        if self.send("batch", count=count, sync=sync, kind=kind) is None:
            self.send(count=count, sync=sync, kind=kind)


def probe(bench: Bench, *, sync: bool) -> Figures:
    """Drain a few jobs, and return how many commands the worker sends for each. Counting slows the server down."""
    count = bench.contestant.probe
    bench.empty()
    bench.fill(count, sync=sync)
    with CommandCount(bench.server) as counted, bench.start("work", count=count, sync=sync) as worker:
        worker.hear("done", within_s=bench.limit_s)
        time.sleep(_SETTLE_S)
    return {"sent_per_job": counted.sent / count}


def drain(bench: Bench, count: int, *, sync: bool) -> Figures:
    """Drain `count` jobs: jobs/s from the first job to the last, the worker's memory, the server's work per job."""
    bench.empty()
    bench.fill(count, sync=sync)
    with closing(bench.server.client()) as client:
        before = Snapshot.take(client)
        with bench.start("work", count=count, sync=sync) as worker:
            said = worker.hear("done", within_s=bench.limit_s)
            rss_kb = worker.rss_kb
            time.sleep(_SETTLE_S)  # what was processed last is being settled
            after = Snapshot.take(client)
    return {
        "rate": (count - 1) / said["seconds"],
        "rss_mb": rss_kb / 1024,
        "server_us": (after.cpu_s - before.cpu_s) / count * 1e6,
        "calls_per_job": (after.commands - before.commands) / count,
    }


def enqueue(bench: Bench, role: str, seconds: float) -> Figures | None:
    """Enqueue for some time, one by one (role send) or 1,000 in a call (role batch); None if it has no such call."""
    bench.empty()
    with closing(bench.server.client()) as client:
        before = Snapshot.take(client)
        said = bench.send(role, seconds=seconds)
        after = Snapshot.take(client)
    if said is None:
        return None
    return {"rate": said["jobs"] / said["seconds"], "server_us": (after.cpu_s - before.cpu_s) / said["jobs"] * 1e6}


def in_turn(bench: Bench, bare: Bench, wake: Bench, observed: Bench, seconds: float) -> Figures | None:
    """Measure in turn with the floor, and return the ratios: a noisy moment slows both.

    `send` and `batch` are rates against those of `bare`, `p50` and `p99` latencies against the p50 of `wake`, `tail` is
    the p99 against its p99; `observed` is the rate of a drain with metrics and logs on against that of one without.
    """
    figures: Figures = {}
    for role in ("send", "batch"):
        floor, ours = enqueue(bare, role, seconds), enqueue(bench, role, seconds)
        if floor is None or ours is None:
            return None
        figures[role] = ours["rate"] / floor["rate"]
    woken, started = latency(wake), latency(bench)
    figures |= {part: started[f"{part}_ms"] / woken["p50_ms"] for part in ("p50", "p99")}
    figures["tail"] = started["p99_ms"] / woken["p99_ms"]
    without, on = (drain(each, _OBSERVED_JOBS, sync=False) for each in (bench, observed))
    return figures | {"observed": on["rate"] / without["rate"]}


def latency(bench: Bench) -> Figures:
    """Enqueue every 5 ms from a second process, and return from the call to the processor's start p50 and p99 in ms."""
    bench.empty()
    with bench.start("work", count=_LATENCY_JOBS, kind="timed") as worker:
        bench.send(count=1, kind="warm")
        worker.hear("warm", within_s=_READY_WITHIN_S)
        time.sleep(_SETTLE_S)
        bench.send(count=_LATENCY_JOBS, kind="timed", gap_ms=_LATENCY_GAP_MS)
        said = worker.hear("done", within_s=_READY_WITHIN_S)
    return {"p50_ms": said["p50"], "p99_ms": said["p99"]}


def idle(bench: Bench, seconds: float) -> Figures:
    """Let a worker idle, and return the commands per second that it sends, its memory and the server's busy share."""
    bench.empty()
    with bench.start("work", kind="timed") as worker:
        bench.send(count=1, kind="warm")
        worker.hear("warm", within_s=_READY_WITHIN_S)
        time.sleep(2 * _SETTLE_S)
        with CommandCount(bench.server) as counted:
            time.sleep(seconds)
        rss_kb = worker.rss_kb
    return {"commands_per_s": counted.sent / counted.seconds, "rss_mb": rss_kb / 1024}


def recovery(bench: Bench) -> Figures:
    """Kill the one of two workers that runs a job, and return after how many s the other starts that job.

    `limit` is 1 if it had not done so by the bench's limit, and `seconds` is then that limit.
    """
    bench.empty()
    with ExitStack() as started:
        workers = [started.enter_context(bench.start("work", kind="hold")) for _ in range(2)]
        # A trickle of other jobs until the end: some look for abandoned ones only when new ones come.
        started.enter_context(bench.start("send", count=2400, kind="warm", gap_ms=50.0))
        for worker in workers:
            worker.hear("warm", within_s=_READY_WITHIN_S)
        time.sleep(_SETTLE_S)
        bench.send(count=1, kind="hold")
        victim, survivor = _holder(workers)
        killed = time.monotonic()
        victim.kill()
        try:
            said = survivor.hear("held", within_s=bench.recovery_limit_s)
        except SilentError:
            return {"seconds": bench.recovery_limit_s, "limit": 1.0}
    return {"seconds": said["at"] - killed, "limit": 0.0}


def _holder(workers: list[Running]) -> tuple[Running, Running]:
    """Return the worker that runs the job, and the other."""
    first, second = workers
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        for worker, other in ((first, second), (second, first)):
            try:
                worker.hear("held", within_s=0.05)
            except SilentError:
                continue
            return worker, other
    raise SilentError("neither worker started the job")


def attempt(measure: Callable[[], Figures | None]) -> Figures | str | None:
    """Return the figures, None where the contestant has no such call, or the reason why it failed."""
    try:
        return measure()
    except SilentError as failure:
        return str(failure)
