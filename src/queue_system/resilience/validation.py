"""Checks of the decorators' arguments. Never changes a value, and never looks at what a call returns."""

from __future__ import annotations

import sys
from collections.abc import Callable

from queue_system.errors import InvalidInputError

__all__ = ["check_count", "check_exceptions", "check_name", "check_seconds", "qualified_name"]


def check_name(field: str, value: object) -> None:
    """Raise InvalidInputError unless `value` is a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise InvalidInputError(field, f"got {value!r}; give a string that is not empty")


def check_seconds(field: str, value: object, *, zero_allowed: bool = False) -> None:
    """Raise InvalidInputError unless `value` is a finite number of seconds above zero (or zero, if allowed)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        above_minimum = value >= 0 if zero_allowed else value > 0
        if above_minimum and value <= sys.float_info.max:
            return
    bound = "of at least 0" if zero_allowed else "above 0"
    raise InvalidInputError(field, f"got {value!r}; give a finite number of seconds {bound}")


def check_count(field: str, value: object, minimum: int) -> None:
    """Raise InvalidInputError unless `value` is an integer of at least `minimum`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise InvalidInputError(field, f"got {value!r}; give an integer of at least {minimum}")


def check_exceptions(field: str, value: object) -> None:
    """Raise InvalidInputError unless `value` is a tuple of Exception classes and not empty.

    A class outside Exception (a cancellation, an exit) is refused: such errors are never retried and are no failure.
    """
    kinds = value if isinstance(value, tuple) else ()
    if not kinds or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        problem = f"got {value!r}; give a tuple of Exception classes such as (ConnectionError,), or None"
        raise InvalidInputError(field, problem)


def qualified_name(fn: Callable[..., object]) -> str:
    """The name of `fn` for messages and notes, such as `QueueManager.enqueue`; its repr if it has no name."""
    return str(getattr(fn, "__qualname__", None) or repr(fn))
