"""The checks of what users pass: which values they take, what they return, and how they tell of what they refuse."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from queue_system import validation
from queue_system.errors import InvalidInputError

HUGE = 10**5000  # which Python does not print
NAME = "a name"
CLASSES = "e: expected a tuple of Exception classes"


class Level(enum.IntEnum):
    ONE = 1


class Word(str):
    """Is formatted as another text, as members of an `enum.Enum` with the type str are."""

    __slots__ = ()

    def __str__(self) -> str:
        return "Word.HIGH"

    def __format__(self, _: str) -> str:
        return "Word.HIGH"


class Seconds(float):
    """A float of somebody's own."""

    def __float__(self) -> float:
        return 77.0


class Integer:
    """Says which integer it is, as the scalars of numpy do."""

    def __init__(self, value: int = 3) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Hostile:
    """Raises whatever is done to it."""

    def __index__(self) -> int:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


def refusal(check: Callable[[], object]) -> str:
    with pytest.raises(InvalidInputError) as caught:
        check()
    return str(caught.value)


@pytest.mark.parametrize("value, taken", [(1, 1), (100, 100), (Level.ONE, 1), (Integer(), 3)])
def test_a_whole_number_is_taken_as_a_plain_int(value: Any, taken: int) -> None:
    found = validation.check_whole("n", value, 1, 100)
    assert (type(found), found) == (int, taken)


@pytest.mark.parametrize(
    "value, got",
    [
        (0, "0"), (101, "101"), (-1, "-1"), (Integer(0), "0"), (HUGE, "a whole number of more than 20 digits"),
        (True, "True"), (None, "None"), (1.0, "float"), (math.nan, "float"), ("1", "str"), (Decimal(1), "Decimal"),
        (Fraction(1), "Fraction"), (Hostile(), "Hostile"), ([1], "list"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_a_whole_number_within_the_limits_is_told_in_one_form(value: Any, got: str) -> None:
    told = refusal(lambda: validation.check_whole("n", value, 1, 100, "count something"))
    assert told == f"n: expected a whole number from 1 to 100, got {got}; count something"


@pytest.mark.parametrize("value, taken", [(0, 0.0), (1.5, 1.5), (Level.ONE, 1.0), (Integer(), 3.0), (Seconds(2), 2.0)])
def test_seconds_are_taken_as_a_plain_float(value: Any, taken: float) -> None:
    found = validation.check_seconds("s", value)
    assert (type(found), found) == (float, taken)


@pytest.mark.parametrize(
    "value, got",
    [
        (-0.001, "-0.001"), (1e10, "10000000000.0"), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"),
        (HUGE, "a whole number of more than 20 digits"), (False, "False"), (None, "None"), ("5", "str"),
        (Decimal("0.5"), "Decimal"), (Fraction(1, 2), "Fraction"), (1j, "complex"), (Hostile(), "Hostile"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_number_of_seconds_is_told_in_one_form(value: Any, got: str) -> None:
    told = refusal(lambda: validation.check_seconds("s", value))
    assert told == f"s: expected a number of seconds from 0 to 1,000,000,000, got {got}"


def test_the_limits_of_seconds_are_told() -> None:
    check = validation.check_seconds
    assert refusal(lambda: check("s", 0, above=True)) == (
        "s: expected a number of seconds above 0 and up to 1,000,000,000, got 0"
    )
    assert refusal(lambda: check("s", math.inf, most=math.inf)) == (
        "s: expected a number of seconds of at least 0, got inf"
    )
    assert refusal(lambda: check("s", 0, most=math.inf, above=True)) == "s: expected a number of seconds above 0, got 0"
    assert refusal(lambda: check("s", 0.1, 0.2)) == (
        "s: expected a number of seconds from 0.2 to 1,000,000,000, got 0.1"
    )
    assert check("s", 1e300, most=math.inf) == 1e300


def test_text_of_a_subclass_is_taken_as_plain_text() -> None:
    found = validation.check_choice("word", Word("high"), ("high", "low"))
    assert (type(found), f"{found}") == (str, "high")
    assert type(validation.check_text("word", Word("high"))) is str


@pytest.mark.parametrize(
    "check, told",
    [
        (lambda: validation.check_choice("p", "x", ("a", "b")), "p: expected one of 'a', 'b', got 'x'"),
        (lambda: validation.check_choice("p", ["a"], ("a", "b")), "p: expected one of 'a', 'b', got list"),
        (lambda: validation.check_text("t", 5, NAME), "t: expected a name, got int"),
        (lambda: validation.check_text("t", "", NAME, validation.NOT_EMPTY), "t: expected a name, got ''"),
        (lambda: validation.check_flag("f", 1), "f: expected True or False, got 1"),
        (lambda: validation.check_flag("f", "no"), "f: expected True or False, got 'no'"),
        (lambda: validation.check_instance("e", "x", InvalidInputError), "e: expected an InvalidInputError, got str"),
        (lambda: validation.check_callable("c", 5), "c: expected a callable, got 5"),
        (lambda: validation.check_list("l", "abc"), "l: expected a list, got str; write ['abc']"),
        (lambda: validation.check_list("l", b"abc"), "l: expected a list, got bytes"),
        (lambda: validation.check_list("l", {1}, "a list of names"), "l: expected a list of names, got set"),
        (
            lambda: validation.check_exceptions("e", (ValueError, KeyboardInterrupt)),
            f"{CLASSES}, got class KeyboardInterrupt in it; for example (ConnectionError,)",
        ),
        (
            lambda: validation.check_exceptions("e", ()),
            f"{CLASSES}, got an empty tuple; for example (ConnectionError,)",
        ),
    ],
)
def test_every_check_tells_what_was_expected_and_given(check: Callable[[], object], told: str) -> None:
    assert refusal(check) == told


@pytest.mark.parametrize(
    "value, told",
    [
        ("x" * 500, "'" + "x" * 79 + "…"),
        ("redis://u:hunter2@host/0", "'redis://u:***@host/0'"),
        ("a\nb\x1b\ud800", r"'a\nb\x1b\ud800'"),
        (refusal, "function refusal"),
        (Level, "class Level"),
        (Hostile(), "Hostile"),
        (b"hunter2", "bytes"),
        ({"password": "hunter2"}, "dict"),
    ],
)
def test_a_shown_value_is_short_and_tells_no_secret(value: object, told: str) -> None:
    assert validation.shown(value) == told
