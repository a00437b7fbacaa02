"""Hostile values in log fields: whatever they hold, a line stays one line, and its fields stay what they are."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from queue_system.metrics.logs import StructuredLogger
from tests.kit.hostile_texts import CORPUS
from tests.kit.logs import LineLogger

LIMIT = 2048
FIELD = re.compile(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "=]+)')


class Console:
    """A stdlib logger as a console shows it and one of its fields, structlog on a terminal, and a user's own logger."""

    def __init__(self) -> None:
        self.plain, self.field, self.terminal, self.own = io.StringIO(), io.StringIO(), io.StringIO(), LineLogger()
        stdlib = logging.Logger("console", logging.DEBUG)  # noqa: LOG001 - outside the global tree
        for stream, shown in ((self.plain, "%(levelname)s %(message)s"), (self.field, "%(error)s")):
            handler = logging.StreamHandler(stream)
            handler.setFormatter(logging.Formatter(shown))
            stdlib.addHandler(handler)
        on_terminal = structlog.wrap_logger(
            structlog.PrintLogger(self.terminal),
            processors=[structlog.dev.ConsoleRenderer(colors=False)],
            wrapper_class=structlog.BoundLogger,
        )
        self._logs = [StructuredLogger.wrap(logger) for logger in (stdlib, on_terminal, self.own)]

    def error(self, **fields: Any) -> None:
        for log in self._logs:
            log.error("operation failed", **fields)

    def check_lines(self) -> None:
        """Each logger wrote one line of characters that show themselves."""
        for stream in (self.plain, self.field, self.terminal):
            check_line(stream.getvalue())
        (line,) = self.own.lines
        assert all(str(value).isprintable() for value in line.fields.values())


@pytest.fixture
def console() -> Console:
    return Console()


def check_line(text: str) -> str:
    """What was written is one line of characters that show themselves; return it."""
    line, feed, rest = text.partition("\n")
    assert (feed, rest) == ("\n", "")
    assert line.isprintable()
    return line


@pytest.mark.parametrize("kind", CORPUS)
@pytest.mark.parametrize("name", ["operation_id", "processor", "error", "key"])
def test_a_hostile_value_begins_no_line_and_steers_no_terminal(console: Console, kind: str, name: str) -> None:
    console.error(**{"error": "plain", name: CORPUS[kind]})
    console.check_lines()


@pytest.mark.parametrize("kind", CORPUS)
def test_a_hostile_value_is_no_other_field(console: Console, kind: str) -> None:
    console.error(operation_id="true", error=CORPUS[kind], attempts=3)
    text = check_line(console.plain.getvalue()).removeprefix("ERROR operation failed")
    assert [name for name, _ in FIELD.findall(text)] == ["operation_id", "error", "attempts"]
    assert FIELD.sub("", text) == ""


def test_the_text_of_a_hostile_error_can_still_be_read(console: Console) -> None:
    console.error(error="first\nsecond \x1b[31mred", operation_id="\u202edi")
    assert console.plain.getvalue().endswith('error="first\\nsecond \\x1b[31mred" operation_id=\\u202edi\n')
    assert console.own.lines[0].fields == {"error": r"first\nsecond \x1b[31mred", "operation_id": r"\u202edi"}


@given(st.text(st.characters()) | st.sampled_from(list(CORPUS.values())).map(lambda text: text * 500))
@example("\x1b" * 100_000)
@example("\\" * 100_000)
@example('"' * 100_000)
@example(" \ud800" * 100_000)
def test_any_text_is_one_field_of_one_line_of_at_most_two_kibibytes(text: str) -> None:
    console = Console()
    console.error(error=text, end=1)
    console.check_lines()
    field = console.plain.getvalue().removeprefix("ERROR operation failed").removesuffix(" end=1\n")
    assert FIELD.fullmatch(field)
    assert len(field.encode()) <= len(' error=""') + LIMIT
    assert len(console.own.lines[0].fields["error"].encode()) <= LIMIT


@pytest.mark.parametrize("value", [[CORPUS["colour"]], {"a\n": "b\n"}, ValueError(CORPUS["both"]), b"\x1b\n"])
def test_a_value_that_is_no_text_is_as_harmless(console: Console, value: Any) -> None:
    console.error(error=value)
    console.check_lines()
