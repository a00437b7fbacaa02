"""`worker` as a process of its own: what it serves, what it logs, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from queue_system import QueueManager
from tests.cli.support import RunProgram

TARGET = f"{__name__.rpartition('.')[0]}.shop:make_config"
WORK = "tests.cli.shop.work"


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


def test_with_debug_each_line_is_logged_once_and_as_json(program: RunProgram, queue: QueueManager, runs: Path) -> None:
    queue.enqueue({"n": 1}, WORK)
    answer = program("--debug", "worker", TARGET, "--burst", "--log-format", "json")
    lines = answer.err.splitlines()
    assert answer.out == ""
    assert "worker started" in [json.loads(line)["message"] for line in lines]
    assert len(set(lines)) == len(lines)


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
