"""The demonstration `examples.stdlib_index`, run as users run it, on a server of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

from examples.stdlib_index.sources import LIBRARY
from queue_system import QueueConfig, QueueManager
from tests.kit.servers import OwnServer, StartServer
from tests.kit.source import ROOT

PATTERNS = ("json/*", "cmd.py", "test/tokenizedata/*")
BROKEN = LIBRARY / "test" / "tokenizedata" / "bad_coding.py"  # where the library's tests are installed
ENDS_WITHIN_S = 40


@contextlib.contextmanager
def demo(
    server: OwnServer, *patterns: str, stdout: int = subprocess.PIPE, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "QUEUE_SYSTEM_REDIS_URL": server.url, **variables}
    command = [sys.executable, "-m", "examples.stdlib_index", *patterns]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def figures_of_a_run(server: OwnServer) -> dict[str, int]:
    """Run the demonstration on a few files without a terminal, and return the counts of its summary."""
    with demo(server, *PATTERNS) as process:
        output, errors = process.communicate(timeout=ENDS_WITHIN_S)
    assert (process.returncode, errors) == (0, "")
    rows = [line.split() for line in output.partition("Summary")[2].splitlines()]
    return {row[0]: int(row[1].replace(",", "")) for row in rows if len(row) == 2 and row[1].replace(",", "").isdigit()}


def test_each_run_accounts_for_all_its_files_and_for_no_other_runs(start_server: StartServer) -> None:
    server = start_server()
    for run in (1, 2):
        figures = figures_of_a_run(server)
        assert figures["enqueued"] == figures["processed"] + figures["failed"]
        assert figures["processed"] > 5
        assert figures["lines"] > figures["functions"] > figures["classes"]
        assert figures["lost"] == 0
        assert figures["retried"] >= figures["failed"]
        assert bool(figures["failed"]) == BROKEN.exists()
        with contextlib.closing(server.client()) as client:
            dead_letters = [json.loads(dead_letter) for dead_letter in client.lrange("queue:failures", 0, -1)]
        assert len(dead_letters) == run * figures["failed"]
        assert all(
            dead_letter["attempts"] == 2 and dead_letter["error_type"] == "SyntaxError" for dead_letter in dead_letters
        )


def test_an_interrupted_run_leaves_nothing_waiting_or_running_and_another_one_works(start_server: StartServer) -> None:
    server = start_server()
    with demo(server) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(" files done" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
        assert (process.wait(ENDS_WITHIN_S), process.stderr.read()) == (130, "")
    found = re.search(r"Interrupted: (\d+) of (\d+) files are done, (\d+) that waited are purged", output)
    assert found is not None
    done, total, purged = map(int, found.groups())
    assert done + purged == total
    status = QueueManager(QueueConfig(redis_url=server.url)).get_queue_status()
    assert status["metrics"]["purged"] == purged > 0
    assert (status["total_items"], status["queue:delayed"], status["queue:running"]) == (0, 0, 0)
    assert figures_of_a_run(server)["lost"] == 0


def test_on_a_terminal_it_draws_a_bar_for_each_priority(start_server: StartServer) -> None:
    ours, its = pty.openpty()
    with demo(start_server(), *PATTERNS, stdout=its, TERM="xterm") as process:
        os.close(its)
        shown = b"".join(_until_closed(ours)).decode()
        assert process.wait(ENDS_WITHIN_S) == 0
    os.close(ours)
    for priority in ("high", "normal", "low"):
        assert f"{priority:<7} " in shown
    assert "━" in shown
    assert "Summary" in shown


def _until_closed(descriptor: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # Linux reports so that the other side has closed
        while read := os.read(descriptor, 4096):
            yield read
