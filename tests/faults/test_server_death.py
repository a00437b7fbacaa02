"""A server that dies, comes back, forgets or refuses: workers carry on, and producers learn it in bounded time."""

from __future__ import annotations

import threading
import time
from typing import Self

import pytest

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.errors import AccessDeniedError, CircuitOpenError, QueueSystemError, ServerUnreachableError
from tests.faults.conftest import Figures, OpenBench
from tests.faults.support import processors
from tests.faults.support.bench import Bench, wait_until
from tests.support.servers import StartServer

LEASE_S = 2.0
OUTAGE_S = 3.0
BACK_AT_WORK_WITHIN_S = 5.0
LONGEST_CALL_S = 5.0
NEW_ITEMS_RUN_WITHIN_S = 2.0


class Producer(threading.Thread):
    """Enqueues one operation after another until told to stop, and remembers how each call ended."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(daemon=True)
        self.config = QueueConfig(redis_url=bench.server.url, queue_prefix=bench.prefix, connection_timeout=1.0)
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self.errors: list[Exception] = []
        self.longest_s = 0.0
        self.over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(10.0)

    def run(self) -> None:
        """Produce."""
        manager = QueueManager(self.config)
        serial = 0
        while not self.over.wait(0.002):
            serial += 1
            each, started = f"live-{serial}", time.monotonic()
            try:
                manager.enqueue({"id": each, "seconds": 0.005}, processors.work, operation_id=each)
                self.acknowledged.append(each)
            except Exception as error:  # noqa: BLE001 - the test judges its type
                self.errors.append(error)
                self.refused.append(each)
                self.over.wait(0.05)
            self.longest_s = max(self.longest_s, time.monotonic() - started)
        self.config.transport.close()


def test_a_killed_server_loses_nothing_and_workers_carry_on_when_it_is_back(
    start_server: StartServer, open_bench: OpenBench, figures: Figures
) -> None:
    server = start_server(appendonly="yes", appendfsync="always")
    bench = open_bench(server)
    ids = bench.enqueue(2000, processors.work, 0.02)
    workers = [bench.start_worker(lease=LEASE_S) for _ in range(2)]
    with Producer(bench) as producer:
        wait_until(lambda: len(bench.journal.entries("end")) > 300, 10.0, "work is under way")
        server.kill()
        time.sleep(OUTAGE_S)
        server.start()
        back_ns = time.monotonic_ns()
        resumed_s = [
            wait_until(
                lambda: any(e.pid == w.pid and e.at_ns > back_ns for e in bench.journal.entries("start")),  # noqa: B023
                BACK_AT_WORK_WITHIN_S,
                f"worker {w.pid} is back at work\n{w.log}",
            )
            for w in workers
        ]
    bench.wait_drained(12.0)

    acknowledged = {*ids, *producer.acknowledged}
    ended = set(bench.journal.count("end"))
    kinds = {type(error).__name__ for error in producer.errors}
    figures(
        lost=len(acknowledged - ended), repeats=bench.journal.repeats(), resumed_s=[round(s, 2) for s in resumed_s],
        acknowledged=len(acknowledged), refused=len(producer.refused), errors=sorted(kinds),
        longest_call_s=round(producer.longest_s, 2), reclaimed=bench.counter("reclaimed"),
    )  # fmt: skip
    assert acknowledged <= ended
    assert ended <= acknowledged | set(producer.refused)
    assert bench.journal.repeats() == 0
    assert kinds == {ServerUnreachableError.__name__, CircuitOpenError.__name__}
    assert producer.longest_s <= LONGEST_CALL_S
    assert bench.counter("processed") == len(ended)


def test_flushall_while_idle_makes_workers_register_again_and_run_new_items(
    start_server: StartServer, open_bench: OpenBench, figures: Figures
) -> None:
    bench = open_bench(start_server())
    workers = [bench.start_worker(slots=2, lease=LEASE_S) for _ in range(2)]
    bench.enqueue(20, processors.work, 0.01)
    bench.wait_drained(5.0)
    bench.wait_idle(2)
    bench.client.flushall()
    registered_s = wait_until(lambda: len(bench.incarnations()) == 2, LEASE_S, "both have registered again")
    ids = bench.enqueue(20, processors.work, 0.01, name="new")
    ran_s = wait_until(lambda: set(ids) <= set(bench.journal.count("end")), 12.0, f"the new ones ran\n{bench.logs()}")
    figures(registered_again_s=round(registered_s, 2), new_items_ran_s=round(ran_s, 2))
    assert ran_s <= NEW_ITEMS_RUN_WITHIN_S
    assert bench.journal.repeats() == 0
    assert all(worker.alive for worker in workers)


def test_script_flush_under_load_surfaces_no_error_and_repeats_nothing(bench: Bench, figures: Figures) -> None:
    ids = bench.enqueue(1000, processors.work, 0.01)
    worker = bench.start_worker()
    flushes = 0
    while bench.counter("processed") < len(ids):
        bench.client.script_flush()
        flushes += 1
        bench.manager.enqueue({"id": f"live-{flushes}", "seconds": 0.0}, processors.work)
        assert worker.alive
    bench.wait_drained(5.0)
    metrics = worker.stop()
    figures(flushes=flushes, repeats=bench.journal.repeats(), errors=metrics.get("errors", 0))
    assert flushes > 50
    assert bench.journal.repeats() == 0
    assert metrics.get("errors", 0) == 0
    assert "ERROR" not in worker.log
    assert bench.counter("processed") == len(ids) + flushes


def test_a_worker_that_starts_before_its_server_picks_up_by_itself(
    start_server: StartServer, open_bench: OpenBench, figures: Figures
) -> None:
    server = start_server()
    bench = open_bench(server)
    server.stop()
    worker = bench.start_worker(lease=LEASE_S)
    time.sleep(1.0)
    assert worker.alive
    server.start()
    ids = bench.enqueue(20, processors.work, 0.01)
    picked_up_s = bench.wait_drained(BACK_AT_WORK_WITHIN_S)
    figures(picked_up_s=round(picked_up_s, 2))
    assert set(bench.journal.count("end")) == set(ids)


async def test_a_wrong_password_raises_at_start_and_is_named_nowhere(start_server: StartServer) -> None:
    server = start_server(tcp=True, requirepass="right-secret")
    config = QueueConfig(redis_url=f"redis://:wrong-secret@127.0.0.1:{server.port}/0")
    worker = QueueWorker(config)
    with pytest.raises(AccessDeniedError) as raised:
        await worker.start()
    assert not worker.running
    error: BaseException | None = raised.value
    while error is not None:
        assert "secret" not in f"{error} {error!r}"
        error = error.__cause__
    with pytest.raises(QueueSystemError) as refused:
        QueueManager(config).enqueue({"id": "x"}, processors.work)
    assert isinstance(refused.value, AccessDeniedError)
    assert "secret" not in str(refused.value)
