"""`worker` as a process of its own: what it serves, how it leaves, and that a stop under load loses nothing."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from queue_system import QueueManager
from tests.cli.support import RunProgram, started
from tests.kit.waiting import wait_until

TARGET = f"{__name__.rpartition('.')[0]}.shop:make_config"
WORK = "tests.cli.shop.work"
MANY = 300


@pytest.fixture
def runs(tmp_path: Path, place: dict[str, str]) -> Path:
    """The file in which the application notes what it has done."""
    place["CLI_TEST_RUNS"] = str(tmp_path / "runs")
    (tmp_path / "runs").touch()
    return tmp_path / "runs"


def test_a_burst_drains_the_queues_that_are_served(program: RunProgram, queue: QueueManager, runs: Path) -> None:
    queue.enqueue_batch([{"n": n} for n in range(20)], WORK, queue_name="served")
    queue.enqueue({"n": 99}, WORK, queue_name="other")
    answer = program("worker", TARGET, "--burst", "--queues", "served, unknown", "--concurrency", "3")
    assert (answer.code, answer.out) == (0, "")
    assert sorted(map(int, runs.read_text().split())) == list(range(20))
    assert queue.get_queue_status()["total_items"] == 1


def test_options_may_come_from_the_environment(program: RunProgram, queue: QueueManager, runs: Path) -> None:
    queue.enqueue({"n": 1}, WORK, queue_name="served")
    queue.enqueue({"n": 2}, WORK, queue_name="other")
    env = {
        "QUEUE_SYSTEM_WORKER_BURST": "1", "QUEUE_SYSTEM_WORKER_QUEUES": "served", "QUEUE_SYSTEM_CONFIG": TARGET,
    }  # fmt: skip
    assert program("worker", env=env).code == 0
    assert runs.read_text() == "1\n"


def test_log_lines_are_json_on_stderr(program: RunProgram, queue: QueueManager, runs: Path) -> None:
    queue.enqueue({"n": 1}, WORK)
    answer = program("worker", TARGET, "--burst", "--log-format", "json")
    assert answer.out == ""
    lines = [line for line in answer.err.splitlines() if '"message"' in line]
    assert lines
    assert all(line.startswith("{") for line in answer.err.splitlines())


def test_with_debug_each_line_is_logged_once_and_as_json(program: RunProgram, queue: QueueManager, runs: Path) -> None:
    queue.enqueue({"n": 1}, WORK)
    lines = program("--debug", "worker", TARGET, "--burst", "--log-format", "json").err.splitlines()
    assert "worker started" in [json.loads(line)["message"] for line in lines]
    assert len(set(lines)) == len(lines)


def test_sigterm_under_load_loses_nothing_and_spends_no_attempt(
    place: dict[str, str], program: RunProgram, queue: QueueManager, runs: Path
) -> None:
    """Running operations end within the grace time; the others go back untouched, and another worker runs them."""
    answers = queue.enqueue_batch([{"n": n, "takes_s": 0.05} for n in range(MANY)], WORK)
    with started("worker", TARGET, "--concurrency", "10", "--grace", "10s", **place) as worker:
        wait_until(lambda: len(runs.read_text().split()) > 30, "it works")
        worker.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        worker.communicate()
    assert (worker.returncode, time.monotonic() - asked < 10) == (0, True)
    done = len(runs.read_text().split())
    assert 30 < done < MANY
    assert queue.get_queue_status()["total_items"] == MANY - done
    records = [queue.get_operation(answer["operation_id"]) for answer in answers]
    assert Counter((r.status, r.attempts) for r in records if r) == {("succeeded", 1): done, ("queued", 0): MANY - done}
    assert program("worker", TARGET, "--burst", "--concurrency", "100").code == 0
    assert sorted(map(int, runs.read_text().split())) == list(range(MANY))


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--concurrency", "0"], "--concurrency: expected a whole number of at least 1, got '0'"),
        (["--http", "nowhere", "--burst"], "http"),
        (["no.such:target", "--burst"], "no.such:target"),
        ([TARGET, "--prefix", "x:"], "--prefix"),
    ],
)
def test_a_wrong_command_line_ends_with_2(program: RunProgram, runs: Path, arguments: list[str], named: str) -> None:
    answer = program("worker", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert named in answer.err
    assert len(answer.err.splitlines()) == 1
