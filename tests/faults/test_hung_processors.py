"""Code that hangs in a thread costs that thread only: its slot, and the worker, go on."""

from __future__ import annotations

from queue_system import QueueRetryConfig
from tests.faults.conftest import Figures
from tests.faults.support import processors
from tests.faults.support.bench import Bench
from tests.kit.waiting import wait_until

SLOTS = 2
HANGS_S = 8.0
HUNG_CALLBACKS = 8


def test_sync_processors_past_their_limit_are_abandoned_and_the_worker_keeps_its_capacity(
    bench: Bench, figures: Figures
) -> None:
    once = QueueRetryConfig(max_attempts=1)
    worker = bench.start_worker(slots=SLOTS)
    hung = bench.enqueue(2 * SLOTS, processors.work_in_thread, HANGS_S, timeout=0.3, retry_config=once)
    given_up_s = wait_until(lambda: bench.counter("failed") == len(hung), f"all timed out\n{bench.logs()}", 4.0)
    bench.enqueue(SLOTS, processors.meet, 0.0, retry_config=once)
    bench.wait_drained(4.0)

    dead_letters = bench.letters("failures")
    figures(given_up_s=round(given_up_s, 2), timed_out=len(dead_letters), processed=bench.counter("processed"))
    assert {dead_letter["operation_id"] for dead_letter in dead_letters} == set(hung)
    assert {dead_letter["error_type"] for dead_letter in dead_letters} == {"TimeoutError"}
    assert bench.counter("processed") == SLOTS
    assert bench.journal.count("end").keys() == {"meet-0", "meet-1"}
    assert bench.journal.repeats() == 0
    metrics = worker.stop()
    assert metrics["timeouts"] == len(hung)
    assert metrics.get("lease_lost", 0) == 0


def test_sync_callbacks_that_hang_leave_the_worker_its_capacity_for_callbacks(bench: Bench, figures: Figures) -> None:
    bench.start_worker(slots=2 * HUNG_CALLBACKS, work_timeout=1.0)
    hung = bench.enqueue(HUNG_CALLBACKS, processors.work, 0.0, on_success=processors.hang_on_success)
    begun_s = wait_until(
        lambda: set(bench.journal.count("callback")) == set(hung), f"all callbacks began\n{bench.logs()}", 4.0
    )
    figures(all_callbacks_began_s=round(begun_s, 2))


def test_sync_callbacks_that_hang_do_not_keep_the_worker_from_reconnecting(bench: Bench, figures: Figures) -> None:
    bench.start_worker(slots=2 * HUNG_CALLBACKS, work_timeout=1.0)
    bench.enqueue(HUNG_CALLBACKS, processors.work, 0.0, on_success=processors.hang_on_success)
    begun = wait_until(lambda: len(bench.journal.entries("callback")) >= 6, "callbacks hang", 4.0)
    bench.client.client_kill_filter(_type="normal")
    bench.enqueue(1, processors.work, 0.0, name="later")
    reconnected_s = wait_until(lambda: bench.journal.count("end")["later-0"], f"it ran\n{bench.logs()}", 5.0)
    figures(callbacks_hung_s=round(begun, 2), reconnected_s=round(reconnected_s, 2))
