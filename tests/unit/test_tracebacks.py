"""Where an error came from: what the text holds, what it never holds, and how long it may be."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from queue_system.errors import ProcessDiedError
from queue_system.logs import JsonFormatter, TextFormatter, without_passwords
from queue_system.metrics import StructuredLogger
from queue_system.resilience import retry_with_backoff, with_timeout
from queue_system.tracebacks import MOST_BYTES, trace
from tests.kit.hostile_texts import CORPUS, FORGED

SECRET = "hunter2"
URL = f"postgres://ada:{SECRET}@db.internal/shop"


def caught(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("nothing was raised")


def look_up(customer: dict[str, str]) -> str:
    return customer["custmer"]


def charge() -> str:
    return look_up({})


def test_the_files_lines_and_code_down_to_the_error_are_told() -> None:
    text = trace(caught(charge)).text
    assert text.startswith("Traceback (most recent call last):\n")
    assert f'File "{__file__}"' in text
    assert "in charge\n    return look_up({})\n" in text
    assert text.endswith("in look_up\n    return customer[\"custmer\"]\nKeyError: 'custmer'\n")


def test_frames_of_this_package_are_left_out_and_the_application_s_are_kept() -> None:
    @with_timeout(default_timeout=5)
    @retry_with_backoff(max_retries=1, base_delay=0.001)
    def work() -> str:
        return charge()

    found = trace(caught(work))
    assert "/queue_system/" not in found.text
    assert "in work\n" in found.text
    assert found.error is not None
    assert found.error.__traceback__ is not None
    assert found.error.__traceback__.tb_frame.f_code.co_filename == __file__


def test_an_error_of_ours_that_no_code_of_the_application_raised_has_no_traceback() -> None:
    error = caught(raising(ProcessDiedError(-9)))
    error.__traceback__ = None
    assert trace(error).text == ""


def recurse(n: int) -> int:
    return 1 + recurse(n + 1)


def ping(n: int) -> int:
    return pong(n + 1)


def pong(n: int) -> int:
    return ping(n + 1)


@pytest.mark.parametrize("endless", [recurse, ping])
def test_an_endless_recursion_is_told_in_few_lines(endless: Callable[[int], int]) -> None:
    text = trace(caught(lambda: endless(0))).text
    assert len(text.splitlines()) < 70
    assert "more times]" in text or "frames are left out" in text
    assert "RecursionError: maximum recursion depth exceeded" in text


def chained(links: int) -> None:
    try:
        if links:
            chained(links - 1)
    finally:
        raise ValueError(f"link {links} " + "x" * 3000)


def failing_in_cause() -> None:
    try:
        charge()
    except KeyError as error:
        raise RuntimeError("no such customer") from error


def grouped(width: int, depth: int = 1) -> ExceptionGroup[Exception]:
    inner = [caught(charge) if depth == 1 else grouped(width, depth - 1) for _ in range(width)]
    return ExceptionGroup("many", [error for error in inner if isinstance(error, Exception)])


def looping() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def raising(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


LARGE: list[Callable[[], Any]] = [
    lambda: chained(30),
    looping,
    raising(grouped(3)),
    raising(grouped(4, 4)),
    raising(ExceptionGroup("wide", [ValueError("x" * 500)] * 50_000)),
    raising(ValueError("y" * 1_000_000)),
    raising(ValueError("\n" * 100_000)),
    raising(ValueError("\udcff é " * 9000)),
]


@pytest.mark.parametrize("call", LARGE)
def test_a_traceback_has_a_bound_whatever_was_raised(call: Callable[[], Any]) -> None:
    found = trace(caught(call))
    assert found.text
    assert len(found.text.encode()) <= MOST_BYTES
    json.dumps(found.text).encode()


def test_the_cause_is_told_before_what_it_led_to() -> None:
    text = trace(caught(failing_in_cause)).text
    assert text.index("KeyError: 'custmer'") < text.index("direct cause") < text.index("RuntimeError: no such customer")


def test_a_cause_that_was_suppressed_is_not_told() -> None:
    def hide() -> None:
        try:
            charge()
        except KeyError:
            raise RuntimeError("hidden") from None

    assert "KeyError" not in trace(caught(hide)).text


def test_each_error_of_a_group_is_told_with_its_place() -> None:
    text = trace(caught(raising(grouped(3)))).text
    assert "ExceptionGroup: many (3 sub-exceptions)" in text
    assert text.count("KeyError: 'custmer'") == 3
    assert text.count("in look_up") == 3


@pytest.mark.parametrize("text", CORPUS.values())
def test_no_text_of_an_error_begins_a_line_or_passes_for_a_place_in_the_code(text: str) -> None:
    """What follows the first line of a message, a note or a name is further in than any frame, and printable."""
    hostile = f'{text}\n  File "forged.py", line 1, in forged\nTraceback (most recent call last):\n{FORGED}'

    def fail() -> None:
        error = type(hostile, (Exception,), {})(hostile)
        error.add_note(hostile)
        raise error from ExceptionGroup(hostile, [KeyError(hostile), ValueError(hostile)])

    lines = trace(caught(fail)).text.splitlines()
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith(FORGED) for line in lines)
    inner = [line.removeprefix("  | ") for line in lines]
    assert not any(line.startswith(('  File "forged', FORGED)) for line in inner)
    assert inner.count("Traceback (most recent call last):") == 1


def test_a_message_of_unprintable_characters_is_cut_and_kept() -> None:
    text = trace(caught(raising(ValueError("\U0010ffff" * 5000)))).text
    assert text.splitlines()[0] == "Traceback (most recent call last):"
    assert "ValueError: \\U0010ffff\\U0010ffff" in text
    assert len(text) < MOST_BYTES // 2


def test_notes_are_told() -> None:
    error = ValueError("boom")
    error.add_note("while charging ada")
    assert trace(caught(raising(error))).text.endswith("ValueError: boom\n    while charging ada\n")


class Hostile(Exception):  # noqa: N818
    """Whatever is asked of it, it raises."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__

    def __getattribute__(self, name: str) -> Any:
        if name == "__notes__":
            raise RuntimeError("no notes")
        return super().__getattribute__(name)


class NoText(str):
    """A text that is none."""

    __slots__ = ()
    encode: Any = None
    __len__: Any = None


class Disguised(Exception):  # noqa: N818
    """Its class lies about where it is from."""

    __notes__: Any = 7

    def __str__(self) -> str:
        return NoText("disguised")


Disguised.__module__ = 5  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Hostile, Disguised])
def test_an_error_whose_own_methods_raise_is_still_told_of(kind: type[Exception]) -> None:
    found = trace(caught(raising(kind())))
    assert found.kind == kind.__name__
    assert found.message
    assert isinstance(found.text, str)


def test_a_syntax_error_names_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_of_tracebacks.py").write_text("x = 1\ndef f(:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = trace(caught(lambda: importlib.import_module("broken_of_tracebacks"))).text
    assert f'File "{tmp_path / "broken_of_tracebacks.py"}", line 2\n    def f(:\n' in text
    assert "SyntaxError: invalid syntax" in text
    assert "frozen importlib" not in text


def connect() -> None:
    raise ConnectionError("cannot reach postgres://ada:hunter2@db.internal/shop")


SECRETIVE: list[Callable[[], Any]] = [
    connect,
    raising(ValueError(URL)),
    raising(ValueError(f"{'x' * 5000} {URL}")),
    raising(ExceptionGroup("many", [ValueError("x"), ValueError(URL)])),
    raising(ValueError(f"https://db.internal/?user=ada&password={SECRET}")),
]


@pytest.mark.parametrize("call", SECRETIVE)
def test_passwords_in_urls_are_in_no_text_and_no_error_that_a_log_may_have(call: Callable[[], Any]) -> None:
    """Neither in messages nor in the lines of code, and the log gets an error of the same name without them."""
    found = trace(caught(call))
    assert found.has_secret
    assert SECRET not in found.text + found.message + str(found.loggable)
    assert found.loggable is not found.error
    assert type(found.loggable).__name__ == found.kind
    assert found.loggable.__traceback__ is None


def test_a_password_in_a_note_or_a_cause_is_taken_out_too() -> None:
    noted = ValueError("x")
    noted.add_note(URL)

    def caused() -> None:
        try:
            raise ValueError(URL)
        except ValueError as error:
            raise RuntimeError("no connection") from error

    for call in (raising(noted), caused):
        found = trace(caught(call))
        assert found.has_secret
        assert SECRET not in found.text
        assert "ada:***@db.internal" in found.text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("redis://:pw@h:1/0 is down", "redis://:***@h:1/0 is down"),
        ("amqp://u:p@ss@h", "amqp://u:***@h"),
        ("http://u@h and a@b", "http://u@h and a@b"),
        ("https://h/x?a=1&password=pw&b=2", "https://h/x?a=1&password=***&b=2"),
        ("https://h/x?token=pw", "https://h/x?token=***"),
        ("no url: a:b@c", "no url: a:b@c"),
        ("r://a:1@b,r://c:2@d", "r://a:***@d"),
    ],
)
def test_what_counts_as_a_password_in_a_url(text: str, expected: str) -> None:
    assert without_passwords(text) == expected


@contextlib.contextmanager
def stdlib_logger(formatter: logging.Formatter) -> Iterator[tuple[logging.Logger, StringIO, list[logging.LogRecord]]]:
    logger, stream, records = logging.getLogger(f"test.{id(formatter)}"), StringIO(), list[logging.LogRecord]()

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    logger.addHandler(Keeping())
    logger.propagate = False
    yield logger, stream, records
    logger.handlers.clear()


@pytest.mark.parametrize("formatter", [logging.Formatter(), JsonFormatter(), TextFormatter()])
@pytest.mark.parametrize("call", [*SECRETIVE, lambda: recurse(0)])
def test_what_a_formatter_writes_of_an_error_is_bounded_and_without_passwords(
    formatter: logging.Formatter, call: Callable[[], Any]
) -> None:
    with stdlib_logger(formatter) as (logger, stream, _):
        StructuredLogger(logger).error("operation failed", error="told apart", exc_info=caught(call))
    text = stream.getvalue()
    assert "operation failed" in text
    assert "test_tracebacks.py" in text
    assert SECRET not in text
    assert len(text) < 2 * MOST_BYTES


def test_handlers_get_the_error_itself_and_the_line_of_who_logged_it() -> None:
    error = caught(charge)
    with stdlib_logger(logging.Formatter()) as (logger, _, records):
        StructuredLogger(logger).error("operation failed at 100%s", exc_info=trace(error))
    (record,) = records
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.exc_info[2] is error.__traceback__
    assert record.getMessage() == "operation failed at 100%s"
    assert (record.pathname, record.funcName) == (__file__, sys._getframe().f_code.co_name)
