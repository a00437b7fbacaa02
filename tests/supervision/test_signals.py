"""Signals to a worker's process, alone and supervised: it leaves in order, or at once, and loses nothing either way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from queue_system.supervision.signals import LEAVE, Departure, handling
from tests.kit.processes import is_alive
from tests.kit.waiting import wait_until
from tests.supervision import app
from tests.supervision.support import LONG_S, Bench

GRACE_S = 10.0
TAKEN_BACK = "something that runs here has replaced or blocked signal handlers of this worker: they are restored"


@pytest.mark.parametrize("processes, number", [(1, signal.SIGTERM), (2, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_first_signal_under_load_finishes_what_runs_and_hands_back_the_rest(
    bench: Bench, processes: int, number: signal.Signals
) -> None:
    count = 2000
    bench.enqueue(count, seconds=0.005)
    program = bench.start(processes=processes, concurrency=4, grace=GRACE_S)
    bench.wait_for_notes("end", 100)
    asked = time.monotonic()
    program.send(number)
    assert program.ends() == 0
    assert time.monotonic() - asked < GRACE_S

    waiting, started, ended = bench.waiting(), bench.noted("start"), bench.noted("end")
    assert waiting, "the signal came too late to mean anything"
    assert all(item.get("attempts", 0) == item.get("crashes", 0) == 0 for item in waiting)
    assert started == ended
    assert max(started.values()) == 1
    assert set(ended) | {item["entity"]["n"] for item in waiting} == set(range(count))
    assert len(ended) + len(waiting) == count
    assert bench.in_flight() == []


def test_what_outlives_the_grace_is_handed_back_without_an_attempt_spent(bench: Bench) -> None:
    bench.enqueue(1, seconds=LONG_S)
    bench.enqueue(1, app.spin, first=1)
    program = bench.start(grace=0.2)
    bench.wait_for_notes("start", 2)
    assert program.leaves() == 0
    assert [(item.get("attempts", 0), item.get("crashes", 0)) for item in bench.waiting()] == [(0, 0)] * 2
    assert not any(is_alive(pid) for _, pid in bench.notes("start"))


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_that_a_processor_forks_end_on_sigterm(bench: Bench, processes: int) -> None:
    """They do not take a wish to leave for their worker's."""
    bench.enqueue(3, app.end_a_process)
    bench.start(processes=processes)
    bench.wait_for_notes(f"ended{-signal.SIGTERM}", 3)


@pytest.mark.parametrize("processes, processor", [(1, app.work), (1, app.block), (2, app.work)])
def test_a_second_signal_ends_it_at_once_and_the_operation_runs_again_elsewhere(
    bench: Bench, processes: int, processor: object
) -> None:
    bench.enqueue(1, processor, seconds=3.0)
    program = bench.start(processes=processes)
    bench.wait_for_notes("start", 1)
    program.send(signal.SIGTERM)
    if processor is app.work:  # else the event loop is blocked, and says nothing
        program.wait_for("worker drains")
    program.send(signal.SIGINT)
    assert program.ends() in {128 + signal.SIGINT, 128 + signal.SIGTERM}  # two that wait come in any order
    wait_until(lambda: not any(is_alive(pid) for _, pid in bench.notes("start")), "no process is left")
    assert bench.noted("end") == {}

    bench.start()
    bench.wait_for_notes("start", 2)


@pytest.mark.parametrize(
    "processor", [app.ignore_signals, app.block_signals, app.take_signals_for_the_loop, app.give_signals_back]
)
def test_signals_are_taken_back_from_whatever_has_taken_them(processor: Any, tmp_path: Path) -> None:
    departure = Departure()
    with handling(departure.handler, *LEAVE):
        asyncio.run(processor({"journal": str(tmp_path / "journal"), "n": 0}))
        assert "SIGTERM" in departure.take_signals()
        assert departure.take_signals() == []
        signal.raise_signal(signal.SIGTERM)
        assert departure.asked


@pytest.mark.parametrize("processes, processor", [(1, app.give_signals_back), (2, app.ignore_signals)])
def test_a_processor_that_handles_signals_does_not_make_its_worker_deaf(
    bench: Bench, processes: int, processor: Any
) -> None:
    """It is told once, with what ran, and a signal that comes afterwards finishes what runs."""
    bench.enqueue(1, seconds=0.5, first=1)
    bench.enqueue(1, processor)
    program = bench.start(processes=processes, concurrency=2)
    (line,) = program.wait_for(TAKEN_BACK)
    assert "SIGTERM" in line
    assert program.leaves() == 0
    assert bench.noted("start") == bench.noted("end") + Counter({0: 1})
    assert bench.waiting() == []
    assert len(program.lines(TAKEN_BACK)) == 1


def test_a_signal_before_the_worker_has_started_ends_it(bench: Bench) -> None:
    program = bench.start(target="tests.supervision.slow_app:config")
    program.wait_for("importing")
    assert program.leaves() == 0
    assert program.lines("worker started") == []


def test_a_child_that_is_asked_twice_still_drains(bench: Bench) -> None:
    """A service manager and the supervisor may both signal it."""
    bench.enqueue(1, seconds=0.5)
    program = bench.start(processes=2)
    bench.wait_for_notes("start", 1)
    ((_, pid),) = bench.notes("start")
    for _ in range(3):
        os.kill(pid, signal.SIGTERM)
    assert program.leaves() == 0
    assert bench.noted("end") == {0: 1}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_ends_a_worker_whose_target_never_ends_its_import(bench: Bench, processes: int) -> None:
    program = bench.start(target="tests.supervision.stuck_app:config", processes=processes, variables={"STUCK": "1"})
    wait_until(lambda: program.log.count("stuck") == processes, "the target is being imported")
    assert program.leaves(10.0) == 0


def test_a_signal_counts_where_the_stack_has_room_for_its_handler_only() -> None:
    """A processor that recurses without end, and catches what that raises, keeps the stack full."""
    departure = Departure(patient=True)
    told: list[bool] = []

    def descend() -> None:
        nonlocal told
        try:
            descend()
        except RecursionError:
            try:
                departure.signalled(signal.SIGTERM, None)
            except RecursionError:
                told += [departure.asked]  # not by a call: there may be room for none
                raise

    with contextlib.suppress(RecursionError):
        descend()
    assert True in told, "somewhere near the deepest frame there is room for the handler and for nothing that it calls"
