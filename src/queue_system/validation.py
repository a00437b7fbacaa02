"""Checks of what users pass, and the one form of the messages: `FIELD: expected WHAT, got GIVEN; WAY OUT`.

Each check returns the value as a plain `int`, `float` or `str`, also where a subclass was given, such as an enum. A
number is what `time.sleep` takes: an `int`, a `float`, or an object whose `__index__` says which integer it is, as
those of numpy do. `True` and `False` are no numbers; `Decimal` and `Fraction` are refused: pass `float(value)`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from queue_system.errors import InvalidInputError
from queue_system.logs import without_passwords

T = TypeVar("T")

LONGEST_S: Final = 1e9
"""The longest time in seconds, about 31 years: due times in milliseconds stay exact numbers."""

NOT_EMPTY: Final = re.compile(r".+", re.DOTALL)
"""Matches text of one character or more."""

_LONGEST_SHOWN: Final = 80
_LONGEST_READ: Final = 4096
_LARGEST_SHOWN: Final = 10**20


def refused(field: str, expected: str, got: str, way_out: str = "") -> InvalidInputError:
    """Return the error for a refused value: which argument, what it must be, what it was, and how to go on."""
    return InvalidInputError(field, f"expected {expected}, got {got}{f'; {way_out}' if way_out else ''}")


def shown(value: object) -> str:
    """Return a refused value for a message: text, numbers and functions by what they say, all else by its type.

    Text is cut and loses the passwords of its URLs. The `__repr__` of foreign objects is not called: it may raise, be
    long or show secrets.
    """
    if isinstance(value, str):
        text = repr(without_passwords(str.__str__(value)[:_LONGEST_READ]))
        return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    if isinstance(value, float):
        return float.__repr__(value)
    whole = _whole(value)
    if whole is not None:
        return repr(whole) if abs(whole) < _LARGEST_SHOWN else "a whole number of more than 20 digits"
    name = getattr(value, "__qualname__", None) if callable(value) else None
    if not isinstance(name, str):
        return type_name(value)
    return f"{'class' if isinstance(value, type) else type_name(value)} {name[:_LONGEST_SHOWN]}"


def type_name(value: object) -> str:
    """Return the name of a value's type, such as `str`; of None, True and False themselves."""
    return repr(value) if value is None or isinstance(value, bool) else type(value).__qualname__


def check_whole(field: str, value: object, least: int, most: int | None = None, way_out: str = "") -> int:
    """Return a whole number from `least` to `most` (None: without an upper limit), or raise InvalidInputError."""
    number = _whole(value)
    if number is not None and least <= number and (most is None or number <= most):
        return number
    got = type_name(value) if number is None else shown(value)
    raise refused(field, f"a whole number {whole_limits(least, most)}", got, way_out)


def whole_limits(least: int, most: int | None) -> str:
    """Return the limits of a whole number for a message, such as `from 1 to 1,000`."""
    return f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"


def check_seconds(
    field: str, value: object, least: float = 0.0, most: float = LONGEST_S, *, above: bool = False, way_out: str = ""
) -> float:
    """Return a number of seconds from `least` (with `above`: beyond it) to `most`, or raise InvalidInputError.

    With `math.inf` as `most`, every finite number is taken.
    """
    number = _number(value)
    if number is not None and _lies_within(number, least, most, above=above):
        return number
    got = type_name(value) if number is None else shown(value)
    raise refused(field, f"a number of seconds {_limits(least, most, above=above)}", got, way_out)


def check_number(field: str, value: object, least: float = 0.0, *, above: bool = False, unit: str = "") -> float:
    """Do what `check_seconds` does for a number of another unit, or of none."""
    number = _number(value)
    if number is not None and _lies_within(number, least, LONGEST_S, above=above):
        return number
    what = f"a number of {unit}" if unit else "a number"
    got = type_name(value) if number is None else shown(value)
    raise refused(field, f"{what} {_limits(least, LONGEST_S, above=above)}", got)


def check_flag(field: str, value: object) -> bool:
    """Return True or False, or raise InvalidInputError for anything else."""
    if isinstance(value, bool):
        return value
    raise refused(field, "True or False", shown(value))


def check_text(
    field: str, value: object, expected: str = "text", pattern: re.Pattern[str] | None = None, way_out: str = ""
) -> str:
    """Return text that `pattern` matches in full, or raise InvalidInputError. `expected` says what it must be."""
    if not isinstance(value, str):
        raise refused(field, expected, type_name(value), way_out)
    text = str.__str__(value)
    if pattern is not None and not pattern.fullmatch(text):
        raise refused(field, expected, shown(text), way_out)
    return text


def check_choice(field: str, value: object, choices: Collection[str], way_out: str = "") -> str:
    """Return text that is one of `choices`, or raise InvalidInputError."""
    if isinstance(value, str) and value in choices:
        return str.__str__(value)
    got = shown(value) if isinstance(value, str) else type_name(value)
    raise refused(field, f"one of {', '.join(repr(choice) for choice in choices)}", got, way_out)


def check_instance(field: str, value: object, kind: type[T], way_out: str = "") -> T:
    """Return an object of a class, or raise InvalidInputError."""
    if isinstance(value, kind):
        return value
    raise refused(field, f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}", type_name(value), way_out)


def check_callable(field: str, value: object, expected: str = "a callable", way_out: str = "") -> Callable[..., Any]:
    """Return what can be called, or raise InvalidInputError. `expected` says what it must be."""
    if callable(value):
        return value
    raise refused(field, expected, shown(value), way_out)


def check_exceptions(field: str, value: object) -> None:
    """Raise InvalidInputError unless `value` is a tuple of Exception classes and not empty.

    A class outside Exception (a cancellation, an exit) is refused: such errors are never retried and are no failure.
    """
    kinds = value if isinstance(value, tuple) else ()
    wrong = next((kind for kind in kinds if not (isinstance(kind, type) and issubclass(kind, Exception))), None)
    if not kinds or wrong is not None:
        got = f"{shown(wrong)} in it" if wrong is not None else "an empty tuple" if value == () else shown(value)
        raise refused(field, "a tuple of Exception classes", got, "for example (ConnectionError,)")


def check_list(field: str, value: object, expected: str = "a list") -> Sequence[Any]:
    """Return a list, a tuple or the like, or raise InvalidInputError; text is no list of its characters."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return value
    raise refused(field, expected, type_name(value), f"write [{shown(value)}]" if isinstance(value, str) else "")


def _whole(value: object) -> int | None:
    """Return the integer that a value is; None if it is none."""
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what has no `__index__` raises
    except Exception:  # noqa: BLE001 - the `__index__` of a foreign object may do anything
        return None


def _number(value: object) -> float | None:
    """Return the number that a value is; None if it is none."""
    if isinstance(value, float):
        return float.__float__(value)
    whole = _whole(value)
    try:
        return None if whole is None else float(whole)
    except OverflowError:
        return math.inf


def _lies_within(number: float, least: float, most: float, *, above: bool) -> bool:
    return math.isfinite(number) and least <= number <= most and not (above and number == least)


def _limits(least: float, most: float, *, above: bool) -> str:
    if most > LONGEST_S:
        return f"above {least:g}" if above else f"of at least {least:g}"
    return f"above {least:g} and up to {most:,.0f}" if above else f"from {least:g} to {most:,.0f}"
