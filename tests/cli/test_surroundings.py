"""What surrounds the program: its help, the environment, a stream that lacks characters or space, an empty folder."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest
import redis

from queue_system import QueueConfig, QueueManager
from tests.cli.support import PROGRAM, RunCli, clean_environment, contexts, run_program
from tests.cli.terminal import Terminal
from tests.cli.test_dead_letters import fail, listed


@pytest.mark.parametrize("context", list(contexts()), ids=lambda context: context.command_path)
def test_help_shows_no_types_where_they_tell_nothing(context: object, cli: RunCli) -> None:
    words = str(getattr(context, "command_path", "")).split()[1:]
    shown = cli(*words, "--help", env={"COLUMNS": "80"})
    assert shown.code == 0
    for noise in ("<bool>", "<str>", "{", "[["):
        assert noise not in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


@pytest.mark.parametrize(
    "variable, value, words",
    [
        ("QUEUE_SYSTEM_WORKER_CONCURRENCY", "many", ["worker"]),
        ("QUEUE_SYSTEM_WORKER_GRACE", "soon", ["worker"]),
        ("QUEUE_SYSTEM_WORKER_QUEUES", "a b", ["worker"]),
        ("QUEUE_SYSTEM_WORKER_HTTP", "nowhere", ["worker"]),
        ("QUEUE_SYSTEM_LOG_LEVEL", "loud", ["worker"]),
        ("QUEUE_SYSTEM_PREFIX", "a b", ["worker"]),
        ("QUEUE_SYSTEM_PREFIX", "a b", ["status"]),
        ("QUEUE_SYSTEM_REDIS_URL", "gopher://x", ["worker"]),
        ("QUEUE_SYSTEM_REDIS_URL", "gopher://x", ["status"]),
        ("REDIS_URL", "gopher://x", ["worker"]),
        ("REDIS_URL", "gopher://x", ["doctor"]),
        ("QUEUE_SYSTEM_CONFIG", "nowhere", ["status"]),
        ("QUEUE_SYSTEM_DEBUG", "perhaps", ["status"]),
        ("QUEUE_SYSTEM_DEAD_LETTERS_LIST_LIMIT", "0", ["dead-letters", "list"]),
        ("QUEUE_SYSTEM_DEAD_LETTERS_LIST_MIN_AGE", "old", ["dead-letters", "list"]),
        ("QUEUE_SYSTEM_ENQUEUE_QUEUE", "a b", ["enqueue", "shop.work", "1"]),
    ],
)
def test_a_bad_value_from_the_environment_names_its_variable(variable: str, value: str, words: list[str]) -> None:
    others = {} if variable == "REDIS_URL" else {"QUEUE_SYSTEM_REDIS_URL": "unix:///nowhere/socket"}
    answer = run_program(*words, **{**others, variable: value})
    assert answer.code == 2, answer.err
    assert len(answer.err.splitlines()) == 1, answer.err
    assert variable in answer.err


def test_what_is_typed_is_named_as_it_was_typed(cli: RunCli) -> None:
    answer = cli("worker", "--concurrency", "many", env={"QUEUE_SYSTEM_WORKER_CONCURRENCY": "3"})
    assert (answer.code, "--concurrency" in answer.err, "QUEUE_SYSTEM" in answer.err) == (2, True, False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
async def test_a_stream_without_utf_8_gets_escapes(config: QueueConfig, place: dict[str, str], encoding: str) -> None:
    await fail(config, "Grüße 世界 \U0001f600")
    environment = clean_environment(**place, PYTHONIOENCODING=encoding, LC_ALL="C", PYTHONUTF8="0")
    for words in (["dead-letters", "list"], ["status"], ["status", "--help"]):
        done = await asyncio.to_thread(
            subprocess.run, [*PROGRAM, *words], env=environment, capture_output=True, timeout=50, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode(encoding)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["--version"], ["status"], ["status", "--json"], ["worker", "--help"]])
def test_a_full_disk_gives_one_line(place: dict[str, str], words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        answer = run_program(*words, stdout=full, **place)
    told = "Error: stdout cannot be written: No space left on device; nothing more is printed\n"
    assert (answer.code, answer.err) == (1, told)


def test_a_reader_that_has_left_is_no_error(place: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    answer = run_program("status", stdout=writer, **place)
    os.close(writer)
    assert (answer.code, answer.err) == (1, "")


@pytest.mark.parametrize(
    "words",
    [["status"], ["doctor"], ["operation", "show", "x"], ["dead-letters", "list"], ["purge", "q", "--yes"]],
    ids=" ".join,
)
def test_looking_in_an_empty_folder_starts_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = run_program(*words)
    assert answer.code == 2
    assert "--url" in answer.err
    assert len(answer.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_status_hides_what_holds_nothing_unless_asked(cli: RunCli, queue: QueueManager) -> None:
    queue.enqueue({}, "shop.one", queue_name="busy")
    queue.enqueue({}, "shop.two", queue_name="idle")
    queue.purge_queue("idle")
    usual, whole = cli("status").out, cli("status", "--all").out
    assert "busy" in usual
    assert "idle" not in usual
    assert "1 queue holds nothing; --all shows them" in usual
    assert "idle" in whole
    assert {each["queue"] for each in cli("status", "--json").document["queues"]} == {"busy", "idle"}


async def test_the_list_of_dead_letters_fits_80_columns_and_tells_the_type(cli: RunCli, config: QueueConfig) -> None:
    await fail(config, "the address " + "x" * 300, queue_name="a-queue-with-a-rather-long-name")
    shown = cli("dead-letters", "list", env={"COLUMNS": "80"}).out
    assert max(map(len, shown.splitlines())) <= 80
    assert "ValueError: the address" in shown
    (dead_letter,) = listed(cli)
    assert dead_letter["letter_id"] in shown
    assert dead_letter["error_type"] == "ValueError"


@pytest.mark.parametrize("verb", ["retry", "drop"])
async def test_naming_a_dead_letter_that_is_gone_exits_with_1_and_names_it(
    cli: RunCli, config: QueueConfig, verb: str
) -> None:
    await fail(config, 1, 2)
    one, _ = listed(cli)
    sure = ["--yes"] if verb == "drop" else []
    answer = cli("dead-letters", verb, one["letter_id"], "0123456789abcdef", *sure, "--json")
    assert answer.code == 1
    assert list(answer.document.values()) == [1]
    assert "failures holds no dead letter '0123456789abcdef'" in answer.err
    assert len(listed(cli)) == 1


async def test_a_dead_letter_that_must_stay_exits_with_1(cli: RunCli, config: QueueConfig, client: redis.Redis) -> None:
    client.lpush(config.failures_queue, json.dumps({"raw_base64": "AAAA", "failure_reason": "bytes"}))
    (dead_letter,) = listed(cli)
    answer = cli("dead-letters", "retry", dead_letter["letter_id"])
    assert answer.code == 1
    assert "1 dead letter named by an id stayed" in answer.err


def test_a_name_without_a_module_is_warned_of(cli: RunCli, queue: QueueManager) -> None:
    doubtful = cli("enqueue", "send_mail", "1")
    assert doubtful.code == 0
    assert "Warning: 'send_mail' names no module" in doubtful.err
    assert cli("enqueue", "send_mail", "1", "--yes").err == ""
    assert cli("enqueue", "shop.send_mail", "1").err == ""
    assert queue.get_queue_status()["total_items"] == 3


async def test_a_name_without_a_module_is_asked_about_on_a_terminal(place: dict[str, str], queue: QueueManager) -> None:
    with Terminal([*PROGRAM, "enqueue", "send_mail", "1"], clean_environment(**place)) as terminal:
        terminal.read_until(b"Enqueue it anyway?")
        terminal.send(b"n\n")
        assert terminal.wait() == 1
    assert queue.get_queue_status()["total_items"] == 0
