"""An orderly end finishes what runs, hands back what waits, spends no attempt and leaves no trace."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.conftest import Figures
from tests.faults.support import processors
from tests.faults.support.bench import Bench
from tests.kit.waiting import wait_until

EXIT_WITHIN_S = 5.0


def items(bench: Bench) -> list[dict[str, Any]]:
    lists = bench.client.smembers(f"{bench.prefix}registry")
    return [json.loads(item) for each in lists for item in bench.client.lrange(each, 0, -1)]


def assert_signed_off(bench: Bench) -> None:
    """Check that no incarnation and nothing in flight is left."""
    assert bench.incarnations() == set()
    assert list(bench.client.scan_iter(match=f"{bench.prefix}inflight:*", count=1000)) == []


def assert_untouched(waiting: list[dict[str, Any]]) -> None:
    """Check that items were handed back as if they had never been claimed."""
    assert all(item.get("attempts", 0) == 0 and item.get("crashes", 0) == 0 for item in waiting)


def test_sigterm_finishes_running_operations_and_hands_back_waiting_ones(bench: Bench, figures: Figures) -> None:
    long = bench.enqueue(2, processors.work, 1.0, priority="high", name="long", queue_name="long")
    short = bench.enqueue(600, processors.work, 0.005)
    worker = bench.start_worker(slots=4)
    wait_until(lambda: bench.counter("processed") > 100, "short operations stream", 5.0)
    wait_until(lambda: len(bench.in_flight(worker.incarnation)) > 4, "some wait for a slot", 5.0)
    asked = time.monotonic()
    worker.stop()
    exit_s = time.monotonic() - asked

    waiting = items(bench)
    ended = bench.journal.count("end")
    figures(
        injected=1, lost=len(long) + len(short) - len(ended) - len(waiting), repeated=bench.journal.repeats(),
        exit_s=round(exit_s, 2), finished=len(ended), handed_back=len(waiting),
    )  # fmt: skip
    assert_signed_off(bench)
    assert_untouched(waiting)
    assert set(long) <= set(ended)
    assert bench.journal.count("start") == ended
    assert waiting, "the signal came too late to mean anything"
    assert set(ended) | {item["operation_id"] for item in waiting} == {*long, *short}
    assert bench.counter("processed") == len(ended) == len(long) + len(short) - len(waiting)


def test_what_is_handed_back_runs_next_and_in_its_old_order(bench: Bench) -> None:
    ids = bench.enqueue(300, processors.work, 0.005)
    bench.start_worker(slots=1).stop()
    first = bench.start_worker(slots=1)
    wait_until(lambda: bench.counter("processed") > 30, "short operations stream", 5.0)
    first.stop()
    bench.start_worker(slots=1)
    bench.wait_drained(8.0)
    assert [entry.operation_id for entry in bench.journal.entries("start")] == ids


@pytest.mark.parametrize("processor", [processors.work, processors.work_in_thread])
def test_ctrl_c_through_asyncio_run_releases_everything_and_spends_no_attempt(
    bench: Bench, figures: Figures, processor: Callable[..., Any]
) -> None:
    ids = bench.enqueue(20, processor, 30.0)
    worker = bench.start_worker(slots=3, only_sleeps=True, lease=15.0)
    wait_until(lambda: len(bench.journal.entries("start")) == 3, "all slots are busy", 5.0)
    interrupted = time.monotonic()
    worker.send(signal.SIGINT)
    worker.wait_end(EXIT_WITHIN_S)
    exit_s = time.monotonic() - interrupted

    waiting = items(bench)
    figures(injected=1, lost=len(ids) - len(waiting), exit_s=round(exit_s, 2), handed_back=len(waiting))
    assert_signed_off(bench)
    assert_untouched(waiting)
    assert {item["operation_id"] for item in waiting} == set(ids)
    assert bench.counter("retried") == bench.counter("failed") == 0


def test_ctrl_c_while_short_operations_stream_loses_none_and_books_none(bench: Bench, figures: Figures) -> None:
    ids = bench.enqueue(600, processors.work, 0.005)
    worker = bench.start_worker(slots=4, only_sleeps=True, lease=15.0)
    wait_until(lambda: bench.counter("processed") > 100, "short operations stream", 5.0)
    worker.send(signal.SIGINT)
    worker.wait_end(EXIT_WITHIN_S)

    waiting = items(bench)
    settled = bench.counter("processed")
    figures(injected=1, lost=len(ids) - len(waiting) - settled, handed_back=len(waiting), settled=settled)
    assert_signed_off(bench)
    assert_untouched(waiting)
    assert len(waiting) + bench.counter("processed") == len(ids)
    assert len(bench.journal.count("end")) == bench.counter("processed")


def test_ctrl_c_does_not_wait_for_a_sync_callback_that_hangs(bench: Bench, figures: Figures) -> None:
    bench.enqueue(1, processors.work, 0.0, on_success=processors.hang_on_success)
    worker = bench.start_worker(slots=2, only_sleeps=True, lease=15.0)
    wait_until(lambda: bench.journal.entries("callback"), "the callback hangs", 5.0)
    interrupted = time.monotonic()
    worker.send(signal.SIGINT)
    worker.wait_end(EXIT_WITHIN_S)
    figures(injected=1, exit_s=round(time.monotonic() - interrupted, 2))
    assert_signed_off(bench)


def test_sigterm_at_any_moment_loses_none_and_runs_none_twice(bench: Bench, figures: Figures, full: bool) -> None:
    rounds, count = (400, 60_000) if full else (4, 600)
    moments = random.Random(1)
    ids = bench.enqueue(count, processors.work, 0.005, on_success=processors.on_success)
    longest_s = 0.0
    for turn in range(rounds):
        idle = turn % 4 == 0
        worker = bench.start_worker(slots=4, queues=["empty"] if idle else None)
        if idle:
            bench.wait_idle(1)
        else:
            time.sleep(moments.uniform(0.0, 0.1))  # the random moment itself
        asked = time.monotonic()
        worker.stop()
        longest_s = max(longest_s, time.monotonic() - asked)
        assert_signed_off(bench)
    settled_before = bench.counter("processed")
    assert settled_before < count, "the signals came too late to mean anything"
    assert_untouched(items(bench))
    bench.start_worker()
    bench.wait_drained(900.0 if full else 30.0)

    lost = len(set(ids) - set(bench.journal.count("success")))
    figures(
        injected=rounds, lost=lost, repeated=bench.journal.repeats(), longest_exit_s=round(longest_s, 2),
        settled_before_last_start=settled_before,
    )  # fmt: skip
    assert lost == bench.journal.repeats() == bench.counter("retried") == 0
    assert longest_s <= EXIT_WITHIN_S
    assert bench.counter("processed") == bench.journal.count("success").total() == count


def test_sigkill_within_the_grace_time_loses_none_and_repeats_only_what_ran(
    bench: Bench, figures: Figures, full: bool
) -> None:
    slots, rounds, lease = 4, 10 if full else 1, 0.5
    repeated = 0
    for turn in range(rounds):
        ids = bench.enqueue(3 * slots, processors.work, 2.0, name=f"turn-{turn}")
        worker = bench.start_worker(slots=slots, lease=lease)
        wait_until(lambda: len(bench.in_flight(worker.incarnation)) >= slots, "all slots are busy", 5.0)  # noqa: B023
        worker.send(signal.SIGTERM)
        time.sleep(0.2)  # nothing tells that the grace time has begun
        worker.kill()
        held = len(bench.in_flight(worker.incarnation))
        successor = bench.start_worker(slots=3 * slots, lease=lease)
        bench.wait_drained(15.0)
        successor.stop()
        assert set(ids) <= set(bench.journal.count("end"))
        assert bench.journal.repeats() - repeated <= held == slots
        repeated = bench.journal.repeats()
    figures(injected=rounds, lost=rounds * 3 * slots - bench.counter("processed"), repeated=repeated)
    assert bench.counter("processed") == rounds * 3 * slots
