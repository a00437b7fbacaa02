"""The program as a process: how it starts, ends, completes, and what it costs to import."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from queue_system import QueueManager
from tests.cli.support import PROGRAM, RunCli, RunProgram, clean_environment, run_program, started
from tests.cli.terminal import Terminal
from tests.kit.servers import OwnServer, StartServer, free_port, listens
from tests.kit.waiting import wait_until

HEAVY = ("prometheus_client", "starlette", "uvicorn", "jinja2", "fastapi", "watchfiles", "queue_system.dashboard")


def test_it_tells_its_version() -> None:
    answer = run_program("--version")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("queue-system ")


@pytest.mark.parametrize(
    "url, told",
    [
        ("rediss://127.0.0.1:1/0", "; if the server does not use TLS on this port, use redis://"),
        ("{}?db=99", " has no such database: DB index is out of range; use a lower number in the URL, such as 0"),
    ],
)
def test_a_url_that_the_server_cannot_serve_is_told_with_the_way_out(
    cli: RunCli, server: OwnServer, url: str, told: str
) -> None:
    answer = cli("status", "--url", url.format(server.url))
    assert told in answer.err
    assert len(answer.err.splitlines()) == 1


SEE = "; see 'queue-system bench --help'\n"


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nonsense"], "Error: No such command 'nonsense'; see 'queue-system --help'\n"),
        (["bench", "--concurrency", "x"], "Error: --concurrency: expected a whole number of at least 1, got 'x'" + SEE),
        (
            ["bench", "--operations", "5"],
            "Error: --operations: expected a whole number from 100 to 1,000,000, got '5'" + SEE,
        ),
        (["status", "--nonsense"], "Error: No such option: --nonsense; see 'queue-system status --help'\n"),
    ],
)
def test_a_wrong_command_line_ends_with_one_line_and_2(arguments: list[str], told: str) -> None:
    answer = run_program(*arguments)
    assert (answer.code, answer.out, answer.err) == (2, "", told)


def test_an_unreachable_server_ends_with_one_line_and_3() -> None:
    answer = run_program("status", "--url", "redis://:secret@127.0.0.1:1/0")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith("Error: redis://127.0.0.1:1/0 does not answer")
    assert "--url" in answer.err
    assert "secret" not in answer.err
    assert len(answer.err.splitlines()) == 1


def test_debug_shows_the_traceback() -> None:
    answer = run_program("status", "--url", "redis://127.0.0.1:1/0", "--debug")
    assert answer.code == 1
    assert "Traceback" in answer.err
    assert "ServerUnreachableError" in answer.err


def test_stdout_is_one_document_without_colours(program: RunProgram) -> None:
    answer = program("status", "--json")
    assert answer.document["waiting"] == 0
    assert answer.err == ""
    assert "\x1b" not in program("status").out


def test_neither_the_core_nor_the_program_imports_what_it_may_not_need() -> None:
    """The core does without the extra, the program without what serves the web."""
    for module, unwanted in (("queue_system", ("typer", "rich", *HEAVY)), ("queue_system.cli.app", HEAVY)):
        code = f"import sys, {module}; print([m for m in {unwanted} if m in sys.modules])"
        assert subprocess.check_output([sys.executable, "-c", code], env=clean_environment(), timeout=30) == b"[]\n"


def test_the_shell_completes_commands_and_options() -> None:
    env = {"_QUEUE_SYSTEM_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert run_program(**env, COMP_WORDS="queue-system dead").out == "dead-letters\n"
    env["COMP_CWORD"] = "2"
    assert "--watch\n" in run_program(**env, COMP_WORDS="queue-system status --").out


def test_the_shell_completes_the_names_of_queues(place: dict[str, str], cli: RunCli) -> None:
    """They come from the server that is meant; without an answer there are none, and no complaint."""
    for name in ("send_mail", "send_bill", "report"):
        cli("enqueue", f"shop.{name}", "{}")
    env = {"_QUEUE_SYSTEM_COMPLETE": "complete_bash", "COMP_CWORD": "2", "COMP_WORDS": "queue-system purge send"}
    assert run_program(**env, **place).out == "send_bill\nsend_mail\n"
    answer = run_program(**env, QUEUE_SYSTEM_REDIS_URL="redis://127.0.0.1:1/0")
    assert (answer.out.strip(), answer.err) == ("", "")


def test_completion_starts_no_server(tmp_path: Path) -> None:
    env = {"_QUEUE_SYSTEM_COMPLETE": "complete_bash", "COMP_CWORD": "2", "COMP_WORDS": "queue-system purge send"}
    answer = run_program(**env, QUEUE_SYSTEM_REDIS_URL=f"embedded://{tmp_path}/data")
    assert (answer.out.strip(), answer.err) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_the_script_for_completion_is_printed() -> None:
    for shell in ("bash", "fish"):
        answer = run_program(_QUEUE_SYSTEM_COMPLETE=f"source_{shell}")
        assert answer.code == 0
        assert "_QUEUE_SYSTEM_COMPLETE" in answer.out
        assert "queue-system" in answer.out


def test_watch_shows_a_live_table_until_ctrl_c(place: dict[str, str], queue: QueueManager) -> None:
    """Ctrl-C is the way to end it: exit code 0, the cursor back, no traceback."""
    with Terminal([*PROGRAM, "status", "--watch", "--interval", "50ms"], clean_environment(**place)) as terminal:
        terminal.read_until(b"waiting")
        queue.enqueue({}, "shop.send_mail")
        terminal.read_until(b"send_mail")
        assert terminal.wait(b"\x03") == 0
    assert b"\x1b[?25h" in terminal.seen.rpartition(b"^C")[2]
    assert b"Traceback" not in terminal.seen


def test_watch_as_json_is_a_document_a_line(place: dict[str, str]) -> None:
    with started("status", "--watch", "--json", "--interval", "50ms", **place) as watching:
        assert watching.stdout is not None
        first, second = watching.stdout.readline(), watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=10)
    assert first.startswith(b'{"server"')
    assert b'"rates": null' in first
    assert b'"rates": {"enqueued": 0.0' in second
    assert (watching.returncode, err) == (0, b"")


def test_further_ctrl_cs_do_not_kill_a_watch_that_ends(place: dict[str, str]) -> None:
    with started("status", "--watch", "--json", "--interval", "50ms", **place) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        while watching.poll() is None:
            watching.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert watching.returncode in (0, 130)  # by an exit code, not by the signal


def test_watch_outlives_an_outage(start_server: StartServer) -> None:
    """An outage is told and ends by itself; SIGTERM is a way to end the command, too."""
    server = start_server()
    interval = ("--interval", "50ms")
    with started("status", "--watch", "--json", *interval, QUEUE_SYSTEM_REDIS_URL=server.url) as watching:
        assert watching.stdout is not None
        lines = iter(watching.stdout.readline, b"")
        assert "waiting" in json.loads(next(lines))
        server.stop()
        trouble = next(document for document in map(json.loads, lines) if "error" in document)
        assert "does not answer" in trouble["error"]
        server.start()
        assert next(document for document in map(json.loads, lines) if "waiting" in document)
        watching.terminate()
        assert watching.wait(10) == 0


@pytest.mark.timeout(180)
def test_a_question_is_asked_on_a_terminal(place: dict[str, str], queue: QueueManager) -> None:
    """Anything but yes changes nothing."""
    env = clean_environment(**place)
    queue.enqueue({}, "shop.send_mail")
    for reply, code in ((b"n\n", 1), (b"\x03", 130), (b"y\n", 0)):
        with Terminal([*PROGRAM, "purge", "send_mail"], env) as terminal:
            terminal.read_until(b"[y/N]")
            assert b"Remove 1 waiting operation from send_mail" in terminal.seen
            assert terminal.wait(reply) == code
    assert b"removed 1 operation" in terminal.seen


@pytest.mark.timeout(180)
def test_ctrl_c_typed_again_and_again_is_one_interrupt(place: dict[str, str], queue: QueueManager) -> None:
    """Whoever leaves already, with its code, is not killed by the next one."""
    queue.enqueue({}, "shop.send_mail")
    with Terminal([*PROGRAM, "purge", "send_mail"], clean_environment(**place)) as terminal:
        terminal.read_until(b"[y/N]")
        assert terminal.wait(b"\x03", again_s=0.05) == 130
    assert b"Traceback" not in terminal.seen


def test_a_closed_pipe_is_no_trouble(place: dict[str, str]) -> None:
    env = clean_environment(**place)
    shell = f"{' '.join(PROGRAM)} status --watch --json --interval 10ms | head -n 2"
    done = subprocess.run(["bash", "-c", shell], env=env, capture_output=True, timeout=30, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == b""


def test_the_dashboard_is_served_until_ctrl_c(place: dict[str, str]) -> None:
    """It answers over HTTP; Ctrl-C ends it in order."""
    port = free_port()
    with started("dashboard", "--port", str(port), **place) as serving:
        wait_until(lambda: listens(port), "it answers")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
            assert response.status == 200
        taken = run_program("dashboard", "--port", str(port), **place)
        assert (taken.code, f"127.0.0.1:{port}" in taken.err) == (2, True)
        serving.send_signal(signal.SIGINT)
        _, err = serving.communicate(timeout=15)
    assert (serving.returncode, b"Traceback" in err) == (0, False)


def test_the_dashboard_is_not_opened_to_others_unasked(place: dict[str, str]) -> None:
    answer = run_program("dashboard", "--host", "0.0.0.0", "--port", "0", **place)  # noqa: S104 - it is refused
    assert (answer.code, answer.out) == (2, "")
    assert "token" in answer.err


@pytest.mark.parametrize("variables, coloured", [({}, True), ({"NO_COLOR": "1"}, False)], ids=["plain", "NO_COLOR"])
def test_colours_are_for_terminals_that_want_them(variables: dict[str, str], coloured: bool) -> None:
    command = [*PROGRAM, "status", "--url", "redis://127.0.0.1:1/0"]
    with Terminal(command, clean_environment(**variables)) as terminal:
        assert terminal.wait() == 3
    assert (b"31m" in terminal.seen) is coloured
