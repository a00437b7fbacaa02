"""What comes from Redis cannot act on the operator's terminal."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from queue_system import QueueManager
from queue_system.cli.text import count, plain, pretty_json, span
from tests.cli.support import RunCli
from tests.support.hostile_texts import CORPUS

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
def test_a_hostile_operation_is_shown_harmlessly(cli: RunCli, queue: QueueManager, text: str) -> None:
    """Every command that shows what somebody else has written escapes it, as text and as JSON."""
    queue.config.registry.register(lambda entity: None, "work", "shop")
    entity = text.encode("utf-8", "replace").decode()
    queue.enqueue({"text": entity}, "shop.work", operation_id="hostile")
    for arguments in (["operation", "show", "hostile"], ["status"]):
        for extra in ([], ["--json"]):
            answer = cli(*arguments, *extra)
            assert answer.code == 0
            assert answer.out.replace("\n", "").isprintable()


def test_what_the_operator_typed_is_escaped_in_errors(cli: RunCli) -> None:
    answer = cli("operation", "show", "\x1b[2J[red]")
    assert answer.code == 2
    assert "\\x1b[2J[red]" in answer.err
    assert "\x1b" not in answer.err


def test_lengths_of_time_and_counts_are_readable() -> None:
    told = [span(s) for s in (0.0005, 0.25, 3.25, 59.94, 60, 3661, 90_000)]
    assert told == ["500 µs", "250 ms", "3.25 s", "59.9 s", "1 min", "1 h 1 min", "1 d 1 h"]
    assert [count(n, "item") for n in (0, 1, 1200)] == ["0 items", "1 item", "1,200 items"]
    assert json.loads(json.dumps(count(1, "item"))) == "1 item"
