"""A worker's process leaves in time and with its documented exit code, whatever still runs in it."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from typing import Any

import pytest

from queue_system import QueueRetryConfig
from tests.kit.waiting import wait_until
from tests.supervision import app
from tests.supervision.support import LONG_S, Bench

LEAVES_WITHIN_S = 30.0
STUBBORN = [app.wait_in_a_thread, app.wait_in_its_own_pool, app.ignore_cancellations, app.block]


def test_a_process_leaves_in_time_whatever_runs_in_it(bench: Bench) -> None:
    """All at once: what waits in threads, what ignores its cancellation, and what blocks the event loop.

    Every other one has a supervisor.
    """
    programs = []
    for n, processor in enumerate(STUBBORN):
        bench.enqueue(1, processor, first=n, seconds=LONG_S)
        programs.append(bench.start(queues=(processor.__name__,), grace=0.2, processes=1 + n % 2))
    bench.wait_for_notes("start", len(STUBBORN))
    asked = time.monotonic()
    for program in programs:
        program.send(signal.SIGTERM)
    assert [program.ends(LEAVES_WITHIN_S) for program in programs] == [0] * len(STUBBORN)
    assert time.monotonic() - asked < LEAVES_WITHIN_S
    waiting = sorted(item["entity"]["n"] for item in bench.waiting())
    assert waiting == list(range(len(STUBBORN))), "not all was handed back"
    assert all(item.get("attempts", 0) == item.get("crashes", 0) == 0 for item in bench.waiting())
    assert bench.in_flight() == []
    assert all("operation_ids" in line for program in programs[2:] for line in program.lines("operations ignore"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_asks_its_own_process_to_leave_has_spent_an_attempt(bench: Bench, number: signal.Signals) -> None:
    """Else it would end the next process, and the one after that."""
    retry = QueueRetryConfig.fixed(LONG_S, max_attempts=2)
    entity = {"n": 1, "journal": str(bench.journal), "seconds": LONG_S, "signal": int(number)}
    bench.queue.enqueue(entity, app.signal_itself, retry_config=retry)
    program = bench.start(grace=0.2)
    assert program.ends(LEAVES_WITHIN_S) == 0
    assert bench.client.zcard(f"{bench.prefix}delayed") == 1
    assert bench.client.hget(f"{bench.prefix}metrics", "retried") == b"1"


def test_a_process_that_can_begin_no_thread_leaves_all_the_same(bench: Bench) -> None:
    """Though none hands its operations back; their lease ends instead."""
    bench.enqueue(1, app.block_without_threads, seconds=LONG_S)
    program = bench.start(grace=0.2)
    bench.wait_for_notes("start", 1)
    assert program.leaves(LEAVES_WITHIN_S) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_processor_that_cancels_all_tasks_ends_no_process(bench: Bench, processes: int) -> None:
    """Neither its own main task nor those that watch the worker are an operation's to cancel."""
    program = bench.start(processes=processes)
    program.wait_for("worker started", processes)
    for n, processor in enumerate((app.cancel_all_tasks, app.gather_all_tasks)):
        bench.enqueue(1, processor, first=n)
        bench.wait_for_notes("start", n + 1)
    bench.enqueue(20, first=2)
    bench.wait_for_notes("end", 20)
    assert len(program.lines("worker started")) == processes
    assert program.lines("worker drains") == []
    assert program.leaves(LEAVES_WITHIN_S) == 0


@pytest.mark.parametrize(
    "processor",
    [app.stop_the_loop_in_another_context, app.exit_in_a_callback, app.cancel_all_tasks_from_a_thread],
)
def test_whoever_ends_its_worker_in_a_way_that_hides_it_is_poison(bench: Bench, processor: Any) -> None:
    """The process says why it ends; what ran is counted as a death, and so goes to the system errors at last."""
    bench.enqueue(1, processor, seconds=LONG_S)
    queue = f"{bench.prefix}normal:{processor.__name__}"
    item: Any = bench.client.rpop(queue)
    bench.client.lpush(queue, json.dumps({**json.loads(item), "crashes": 3}))
    program = bench.start(concurrency=2)
    bench.wait_for_notes("start", 1)
    assert program.ends() != 0
    (line,) = program.wait_for("something that runs here has ended this worker's event loop or cancelled its tasks")
    assert json.loads(item)["operation_id"] in line

    bench.enqueue(4, first=1)
    bench.start()
    bench.wait_for_notes("end", 4)
    wait_until(lambda: bench.client.llen(f"{bench.prefix}system_errors") == 1, "it is a dead letter")
    assert bench.noted("start") == Counter(range(5))
