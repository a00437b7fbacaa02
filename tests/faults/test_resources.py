"""Memory, descriptors, threads, connections and log lines stay bounded, however long a worker lives."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

from queue_system import QueueConfig, QueueManager, QueueSystemError
from queue_system.broker.commands import SCRIPTS
from tests.faults.conftest import Figures, OpenBench
from tests.faults.support import processors
from tests.faults.support.bench import Bench, WorkerProcess
from tests.kit.logs import LineLogger
from tests.kit.servers import StartServer
from tests.kit.waiting import wait_until

MIB = 1024 * 1024
RESULT_TTL_S = 0.5
BALLAST_MIB = 64
BATCH = 1000
CONNECTIONS_BEYOND_THE_POOL = 3
POOL = 2
"""How many connections the threads of one worker use at once, at most."""
GONE_WITHIN_S = 5.0
"""How long the server may take to see that a connection has been replaced."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a worker process occupies at one moment."""

    operations: int
    rss: int
    descriptors: int
    threads: int
    connections: int


def sample(bench: Bench, worker: WorkerProcess) -> Sample:
    """Read what the worker occupies from the kernel, and its connections from the server."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines())
    return Sample(
        operations=bench.counter("processed"),
        rss=int(status["VmRSS"].split()[0]) * 1024,
        descriptors=len(list(Path(f"/proc/{worker.pid}/fd").iterdir())),
        threads=int(status["Threads"]),
        connections=connections(bench),
    )


def connections(bench: Bench) -> int:
    """Count the connections that stay; there must be few."""
    most = CONNECTIONS_BEYOND_THE_POOL + 2 * POOL
    wait_until(lambda: len(bench.client.client_list()) <= most, f"at most {most} connections", GONE_WITHIN_S)
    return len(bench.client.client_list())


def used_memory(bench: Bench) -> int:
    """Return what the server's allocator has given out."""
    return int(bench.client.info("memory")["used_memory"])


def run_operations(bench: Bench, count: int) -> None:
    """Enqueue and wait, so that the backlog stays short."""
    for _ in range(count // BATCH):
        target = bench.counter("processed") + BATCH
        bench.manager.enqueue_batch([{"text": "x" * 100}] * BATCH, processors.nothing)
        wait_until(lambda: bench.counter("processed") >= target, bench.logs(), 30.0)  # noqa: B023


def wait_expired(bench: Bench) -> None:
    wait_until(lambda: not any(bench.client.scan_iter(match=f"{bench.prefix}operation:*", count=1000)), "expired", 60.0)


def test_memory_descriptors_and_connections_stay_flat_over_many_operations(
    open_bench: OpenBench, figures: Figures, full: bool
) -> None:
    warm_up, samples, step = (100_000, 90, 10_000) if full else (4000, 8, 2000)
    bench = open_bench(appendonly="no")
    for i in range(BALLAST_MIB):  # makes one per cent more than the noise of an empty server
        bench.client.set(f"ballast:{i}", bytes(MIB))
    worker = bench.start_worker(slots=20, hooks={"config": {"result_ttl": RESULT_TTL_S}})
    run_operations(bench, warm_up)
    wait_expired(bench)
    used_before, taken = used_memory(bench), []
    for _ in range(samples):
        run_operations(bench, step)
        taken.append(sample(bench, worker))
    wait_expired(bench)
    used_s = wait_until(
        lambda: used_memory(bench) <= 1.01 * used_before, f"{used_memory(bench)} is near {used_before}", 30.0
    )

    slope = linear_regression([each.operations for each in taken], [each.rss for each in taken]).slope
    growth, operations = taken[-1].rss - taken[0].rss, taken[-1].operations - taken[0].operations
    figures(
        injected=warm_up + samples * step, lost=0, repeated=0, recovery_s=round(used_s, 2),
        rss_mib=round(taken[-1].rss / MIB, 1), rss_slope_mib_per_100k=round(slope * 100_000 / MIB, 3),
        descriptors=sorted({each.descriptors for each in taken}), threads=sorted({each.threads for each in taken}),
        connections=sorted({each.connections for each in taken}),
        used_memory_percent=round(100 * used_memory(bench) / used_before, 2),
    )  # fmt: skip
    if full:
        assert slope * 100_000 < MIB
    else:
        assert growth < 4 * MIB, f"in {operations} operations"
    assert len({each.threads for each in taken}) == 1
    assert max(each.descriptors for each in taken) - min(each.descriptors for each in taken) <= POOL
    assert max(each.connections for each in taken) <= CONNECTIONS_BEYOND_THE_POOL + 2 * POOL
    assert bench.client.info("memory")["number_of_cached_scripts"] <= len(SCRIPTS)


def test_outages_leave_no_descriptor_thread_or_connection_behind(
    open_bench: OpenBench, figures: Figures, full: bool
) -> None:
    outages = 50 if full else 3
    bench = open_bench(appendfsync="no")
    worker = bench.start_worker()
    run_operations(bench, BATCH)
    bench.wait_idle(1)
    before, recovery_s = sample(bench, worker), []
    for turn in range(outages):
        bench.server.kill()
        bench.server.start()
        back = time.monotonic()
        ids = bench.enqueue(10, processors.work, 0.0, name=f"turn-{turn}")
        wait_until(lambda: set(ids) <= set(bench.journal.count("end")), bench.logs(), 15.0)  # noqa: B023
        recovery_s.append(time.monotonic() - back)
    bench.wait_drained(5.0)
    bench.wait_idle(1)
    after = sample(bench, worker)

    figures(
        injected=outages, lost=0, repeated=bench.journal.repeats(), recovery_s=f"{max(recovery_s):.2f} at most",
        descriptors=f"{before.descriptors} then {after.descriptors}", threads=f"{before.threads} then {after.threads}",
        connections=f"{before.connections} then {after.connections}",
    )  # fmt: skip
    assert after.descriptors <= before.descriptors + POOL
    assert after.threads == before.threads
    assert after.connections <= CONNECTIONS_BEYOND_THE_POOL + 2 * POOL
    assert bench.client.info("memory")["number_of_cached_scripts"] <= len(SCRIPTS)


def test_an_outage_costs_a_producer_at_most_one_log_line_per_second(
    start_server: StartServer, figures: Figures, full: bool
) -> None:
    outage_s = 600.0 if full else 2.0
    server, logger = start_server(), LineLogger()
    config = QueueConfig(redis_url=server.url, logger=logger, connection_timeout=1.0, max_connection_retries=0)
    manager = QueueManager(config)
    manager.enqueue({}, processors.nothing)
    before, refused, over = len(logger.lines), 0, time.monotonic() + outage_s
    server.kill()
    while time.monotonic() < over:
        try:
            manager.enqueue({}, processors.nothing)
        except QueueSystemError:
            refused += 1
        time.sleep(0.01)  # a producer that is asked a hundred times a second
    config.transport.close()
    told = len([line for line in logger.lines[before:] if line.level != "debug"])
    figures(injected=1, outage_s=outage_s, log_lines=told, refused=refused)
    assert refused
    assert told <= outage_s + 1


def test_an_outage_costs_a_worker_at_most_one_log_line_per_second(
    open_bench: OpenBench, figures: Figures, full: bool
) -> None:
    outage_s = 600.0 if full else 5.0
    bench = open_bench()
    worker = bench.start_worker()
    bench.wait_idle(1)
    before = len(worker.log.splitlines())
    bench.server.kill()
    time.sleep(outage_s)  # the outage itself
    lines = len(worker.log.splitlines()) - before
    bench.server.start()
    bench.enqueue(10, processors.work, 0.0)
    recovery_s = bench.wait_drained(15.0)
    figures(
        injected=1, lost=10 - len(bench.journal.count("end")), repeated=bench.journal.repeats(),
        recovery_s=round(recovery_s, 2), outage_s=outage_s, log_lines=lines,
    )  # fmt: skip
    assert lines <= outage_s + 1, worker.log
