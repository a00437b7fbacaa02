"""What comes from Redis cannot act on the operator's terminal."""

from __future__ import annotations

import io
import json

import pytest
import redis
from rich.console import Console

from queue_system import QueueManager, QueueRetryConfig, QueueWorker
from queue_system.cli.text import count, moment, plain, pretty_json, span
from tests.cli.support import RunCli
from tests.kit.hostile_texts import CORPUS, FORGED

MARKUP = "[red]\x1b[2J[link=https://example.org]x[/link] :smiley:"


def shown(renderable: object) -> str:
    """What a terminal would get, colours included."""
    console = Console(file=io.StringIO(), force_terminal=True, width=500, color_system="truecolor")
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_text_stays_text(name: str) -> None:
    text = CORPUS[name]
    assert shown(plain(text)).rstrip("\n").isprintable()
    assert shown(pretty_json({text: [text]})).replace("\n", "").isprintable()


def test_markup_and_emoji_are_shown_as_they_are() -> None:
    assert shown(plain(MARKUP)) == "[red]\\x1b[2J[link=https://example.org]x[/link] :smiley:\n"


@pytest.mark.parametrize("text", [MARKUP, *CORPUS.values()])
async def test_a_hostile_operation_is_shown_harmlessly(
    cli: RunCli, queue: QueueManager, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Every command that shows what somebody else has written escapes it, as text and as JSON."""
    hostile = text.encode("utf-8", "replace").decode()

    def fail(entity: object) -> None:
        raise ValueError(text)

    queue.config.registry.register(fail, "fail", "shop")
    queue.config.registry.register(lambda entity: {hostile: [hostile]}, "work", "shop")
    once = QueueRetryConfig(max_attempts=1)
    queue.enqueue({}, "shop.fail", operation_id="failed", retry_config=once)
    queue.enqueue({}, "shop.work", operation_id="succeeded")
    host = hostile.replace("\n", "").replace("\t", "")  # in a record these two end the worker's name
    monkeypatch.setattr("socket.gethostname", lambda: host)
    worker = QueueWorker(queue.config)
    await worker.start()
    for operation_id in ("failed", "succeeded"):
        record = await queue.await_for(operation_id, timeout=10)
        assert record.status == operation_id
        assert host in str(record.worker)
    await worker.stop()
    (dead_letter,) = queue.list_dead_letters().letters
    assert_harmless(cli, ["operation", "show", "failed"], ["operation", "show", "succeeded"], ["status"])
    assert_harmless(cli, ["dead-letters", "list"], ["dead-letters", "show", dead_letter.letter_id])


def assert_harmless(cli: RunCli, *commands: list[str]) -> None:
    for arguments in commands:
        for extra in ([], ["--json"]):
            answer = cli(*arguments, *extra, env={"COLUMNS": "500"})
            assert answer.code == 0
            lines = answer.out.split("\n")
            assert all(line.isprintable() for line in lines)
            assert not any(line.strip().startswith(FORGED) for line in lines)


@pytest.mark.parametrize("text", [MARKUP, *CORPUS.values()])
def test_a_dead_letter_that_somebody_else_wrote_is_shown_harmlessly(
    cli: RunCli, queue: QueueManager, client: redis.Redis, text: str
) -> None:
    """No member of it begins a line of the terminal, its traceback of several lines neither, nor do its bytes."""
    members = ("operation_id", "processor", "queue", "failure_reason", "error_type")
    dead_letter = dict.fromkeys(members, text) | {"entity": {text: text}, "traceback": f"{FORGED}\n{text}\n{FORGED}"}
    client.lpush(queue.config.keys.failures, b"\x1b[2J[red]no json\xff", json.dumps(dead_letter))
    found = queue.list_dead_letters().letters
    assert len(found) == 2
    assert_harmless(cli, ["dead-letters", "list"], *(["dead-letters", "show", each.letter_id] for each in found))


def test_what_the_operator_typed_is_escaped_in_errors(cli: RunCli) -> None:
    answer = cli("operation", "show", "\x1b[2J[red]")
    assert answer.code == 2
    assert "\\x1b[2J[red]" in answer.err
    assert "\x1b" not in answer.err


def test_lengths_of_time_and_counts_are_readable() -> None:
    told = [span(s) for s in (0.0005, 0.25, 3.25, 59.94, 60, 3661, 90_000)]
    assert told == ["500 µs", "250 ms", "3.25 s", "59.9 s", "1 min", "1 h 1 min", "1 d 1 h"]
    assert [count(n, "item") for n in (0, 1, 1200)] == ["0 items", "1 item", "1,200 items"]


@pytest.mark.parametrize("unix_s", [1e20, -1e20, 1e300, float("inf"), float("nan")])
def test_a_time_that_no_calendar_holds_is_shown_as_its_number(unix_s: float) -> None:
    assert moment(unix_s) == f"{unix_s:g}"
    assert moment(None) == "-"
