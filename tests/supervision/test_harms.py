"""Whatever an operation does to its worker's process: others run once, and the process ends in time and says why."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from queue_system import QueueRetryConfig
from tests.kit.waiting import wait_until
from tests.supervision import app, harms
from tests.supervision.support import Bench, Program

LEAVES_WITHIN_S = 30.0
LATER = range(1, 13)


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """What hides uvloop from a program; asyncio's own event loop reads the clock that operations may replace."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text("raise ImportError")
    return {"PYTHONPATH": os.pathsep.join([str(hidden), *sys.path])}


def harmed(bench: Bench, variables: dict[str, str], harm: Callable[[], None]) -> Program:
    """Start a program, and let an operation harm its process."""
    program = bench.start(variables, grace=0.2)
    program.wait_for("worker started")
    entity = {"n": 0, "journal": str(bench.journal), "harm": harm.__name__}
    bench.queue.enqueue(entity, app.harm_in_the_loop, retry_config=QueueRetryConfig(max_attempts=1))
    bench.wait_for_notes("end", 1)
    return program


@pytest.mark.parametrize("harm", [harms.freeze_the_clocks, harms.break_the_clocks, harms.refuse_tasks])
def test_who_replaces_what_a_worker_needs_harms_no_other_operation_and_not_its_end(
    bench: Bench, variables: dict[str, str], harm: Callable[[], None]
) -> None:
    program = harmed(bench, variables, harm)
    bench.enqueue(6, first=1, seconds=0.01)
    bench.enqueue(6, first=7, processor=app.note_in_a_thread)
    bench.wait_for_notes("end", 1 + len(LATER))
    assert program.leaves(LEAVES_WITHIN_S) == 0, program.log
    assert bench.noted("end") == Counter([0, *LATER])
    assert bench.in_flight() == []


@pytest.mark.parametrize("harm", [harms.limit_the_memory, harms.keep_the_locks_of_logging])
def test_a_process_that_can_neither_begin_threads_nor_log_leaves_in_time(
    bench: Bench, harm: Callable[[], None]
) -> None:
    program = harmed(bench, {}, harm)
    assert program.leaves(LEAVES_WITHIN_S) == 0, program.log


def test_a_signal_s_handler_that_ends_the_event_loop_is_told_in_one_line(bench: Bench) -> None:
    """Whichever code it interrupts, the process ends with an error, and its operations run elsewhere."""
    program = harmed(bench, {}, harms.set_a_timer_whose_signal_exits)
    assert program.ends(LEAVES_WITHIN_S) == 1
    (line,) = program.lines("an error of something that runs here has ended this worker's event loop")
    assert "exit_code=1" in line
    assert "During handling of the above exception" not in program.log
    bench.enqueue(6, first=1)
    bench.start()
    wait_until(lambda: bench.noted("end").keys() >= set(range(1, 7)), "others run")


def test_a_timer_that_is_left_behind_keeps_no_process_from_its_orderly_end(bench: Bench) -> None:
    """Its signals come no more when the worker has left."""
    program = harmed(bench, {}, harms.set_a_timer)
    assert program.leaves(LEAVES_WITHIN_S) == 0, program.log


def test_a_callback_that_fails_for_ever_fills_no_log(bench: Bench, variables: dict[str, str]) -> None:
    program = harmed(bench, variables, harms.fail_by_a_timer_for_ever)
    program.wait_for("Exception in callback", 10)
    bench.enqueue(50, first=1, seconds=0.02)
    bench.wait_for_notes("end", 51)
    assert len(program.lines("Exception in callback")) == 10
