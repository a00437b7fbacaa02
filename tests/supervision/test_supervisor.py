"""The supervisor keeps its processes alive, replaces them in order, and takes them with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from queue_system.supervision import WorkerSettings, places
from queue_system.supervision.places import Place
from tests.kit.processes import is_alive
from tests.kit.waiting import wait_until
from tests.supervision import app
from tests.supervision.support import LONG_S, Bench


def test_a_killed_process_is_replaced_and_its_operations_run_again(bench: Bench) -> None:
    program = bench.start(processes=2)
    program.wait_for("worker started", 2)
    before = program.children()
    bench.enqueue(1, seconds=0.3)
    bench.wait_for_notes("start", 1)
    ((_, victim),) = bench.notes("start")
    os.kill(victim, signal.SIGKILL)
    (line,) = program.wait_for("worker process died")
    assert f"pid={victim} " in line
    assert "signal=SIGKILL" in line
    assert "delay_s=0.5" in line
    bench.wait_for_notes("end", 1)
    program.wait_for("worker started", 3)
    after = program.wait_for_children(2)
    assert len({*before, *after}) == 3


def test_children_of_a_killed_supervisor_drain_and_leave(bench: Bench) -> None:
    bench.enqueue(1, seconds=0.5)
    bench.enqueue(1, app.spin, first=1)
    program = bench.start(processes=2, grace=1.0)
    bench.wait_for_notes("start", 2)
    children = program.wait_for_children(2)
    program.send(signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, children)), "the children leave")
    assert bench.noted("end") == {0: 1}
    assert [item.get("attempts", 0) for item in bench.waiting()] == [0]
    wait_until(lambda: not any(is_alive(pid) for _, pid in bench.notes("start")), "their processors leave")
    assert bench.in_flight() == []


def test_processes_that_die_at_once_are_started_at_growing_intervals(bench: Bench) -> None:
    program = bench.start(target="tests.supervision.dying_app:config", processes=2)
    lines = program.wait_for("worker process died", 5)
    assert all("exit_code=7" in line for line in lines)
    delays = [line.partition("delay_s=")[2].split()[0] for line in lines]
    assert sorted(delays[:4]) == ["0.5", "0.5", "1.0", "1.0"]
    assert delays[4] == "2.0"
    assert program.leaves() in {0, 1}  # 1: the next one was just about to die


def test_the_interval_grows_to_a_bound_and_begins_anew_after_a_minute_of_health(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(WorkerSettings())
    monkeypatch.setattr(Place, "lived_s", lambda _: places.HEALTHY_AFTER_S - 1)
    assert [place.back_off() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    monkeypatch.setattr(Place, "lived_s", lambda _: places.HEALTHY_AFTER_S)
    assert [place.back_off() for _ in range(2)] == [0.5, 0.5]


def test_a_child_that_does_not_leave_in_time_is_killed_and_loses_nothing(bench: Bench) -> None:
    bench.enqueue(1, app.block, seconds=LONG_S)
    program = bench.start(processes=2, grace=0.1, margin=0.3)
    bench.wait_for_notes("start", 1)
    assert program.leaves() == 1
    assert program.lines("worker process did not leave in time and is killed")
    bench.start()
    bench.wait_for_notes("start", 2)


def test_hang_up_replaces_the_processes_one_after_the_other_while_work_goes_on(bench: Bench) -> None:
    program = bench.start(processes=2, concurrency=2)
    program.wait_for("worker started", 2)
    before = program.children()
    bench.enqueue(400, seconds=0.01)
    bench.wait_for_notes("start", 10)
    program.send(signal.SIGHUP)
    bench.wait_for_notes("end", 400)
    program.wait_for("worker process left and is replaced", 2)
    program.wait_for("worker started", 4)
    assert not {*before} & {*program.wait_for_children(2)}
    assert max(bench.noted("start").values()) == 1
    order = [line.split()[5] for line in program.lines("worker ") if " drains" in line or " started" in line]
    assert order == ["started"] * 2 + ["drains", "started"] * 2


@pytest.mark.parametrize("processes", [1, 2])
def test_a_wrong_target_is_told_once_and_ends_it_with_exit_code_2(bench: Bench, processes: int) -> None:
    program = bench.start(target="tests.supervision.app:fail", processes=processes)
    assert program.ends() == 2
    assert len(program.lines("target: 'tests.supervision.app:fail' raised LookupError: no settings for this host")) == 1
    assert "supervision/app.py:" in program.log, "it tells where"


def test_a_process_is_replaced_after_so_many_attempts(bench: Bench) -> None:
    program = bench.start(max_operations=20, concurrency=1)
    for round_ in range(3):
        bench.enqueue(20, first=20 * round_)
        bench.wait_for_notes("end", 20 * (round_ + 1))
        program.wait_for("worker process left and is replaced", round_ + 1)
    assert len({pid for _, pid in bench.notes("end")}) == 3
    assert max(bench.noted("start").values()) == 1
    assert program.leaves() == 0


def test_a_process_that_has_grown_too_large_is_replaced(bench: Bench) -> None:
    program = bench.start(max_memory_mb=200, concurrency=1)
    bench.enqueue(1, app.grow, mb=1)
    bench.wait_for_notes("end", 1)
    bench.enqueue(1, app.grow, first=1, mb=250)
    program.wait_for("worker process left and is replaced")
    bench.enqueue(1, app.grow, first=2, mb=1)
    bench.wait_for_notes("end", 3)
    first, second, third = (pid for _, pid in bench.notes("end"))
    assert first == second != third


@pytest.mark.parametrize("processes", [1, 2])
def test_a_burst_ends_when_nothing_is_ready_and_nothing_runs(bench: Bench, processes: int) -> None:
    bench.enqueue(300, seconds=0.001)
    bench.enqueue(1, first=300, seconds=0.5)
    bench.queue.enqueue({"n": -1, "journal": "", "seconds": 0}, app.work, retry_config=None)
    program = bench.start(processes=processes, burst=True)
    assert program.ends() == 0
    assert bench.noted("end") == dict.fromkeys(range(301), 1)
    assert bench.waiting() == []
    assert bench.in_flight() == []
    assert bench.client.zcard(f"{bench.prefix}delayed") == 1, "what failed is due later, and not waited for"


def test_a_changed_source_file_starts_the_worker_anew(bench: Bench, tmp_path: Path) -> None:
    program = bench.start(reload=True, target="answer:make")
    program.wait_for("target: 'answer:make' cannot be found")
    source = tmp_path / program.folder / "answer.py"
    source.write_text("from tests.supervision.app import config\ndef make():\n    return config\n")
    program.wait_for("worker started")
    source.write_text("from tests.supervision.app import config\ndef make():\n    return config.keys\n")
    program.wait_for("target: expected a QueueConfig or a QueueWorker from 'answer:make', got Keys")
    assert program.process.poll() is None
    assert program.leaves() == 0
