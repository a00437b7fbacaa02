"""Checks of what callers of the manager pass. Never talks to Redis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from queue_system.errors import InvalidInputError, shown
from queue_system.model.keys import check_identifier

_LONGEST_S = 1e9
DURABILITIES: Final = ("fast", "fsync", "replicated")
"""What an enqueue waits for: nothing but the server's memory, its disk, or one replica."""


def check_list(field: str, values: Any) -> Sequence[Any]:
    """Return a list or tuple, or raise InvalidInputError."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        meant = f"a str; use [{shown(values)}]" if isinstance(values, str) else shown(values)
        raise InvalidInputError(field, f"expected a list, got {meant}")
    return values


def check_column(field: str, values: Any, length: int) -> list[str] | None:
    """Check one member's values over a whole batch; None stays None. Raises InvalidInputError."""
    if values is None:
        return None
    if len(check_list(field, values)) != length:
        raise InvalidInputError(field, f"{len(values)} values for {length} entities; give one for each")
    return [check_identifier(value, f"{field}[{i}]") for i, value in enumerate(values)]


def check_unique(field: str, values: list[str] | None) -> list[str] | None:
    """Return the values, or raise InvalidInputError at the first that is there twice."""
    if values is not None and len(set(values)) != len(values):
        i = next(i for i, value in enumerate(values) if value in values[:i])
        raise InvalidInputError(f"{field}[{i}]", f"{values[i]!r} stands in this batch already")
    return values


def check_durability(value: object, default: str = "fast") -> str:
    """Return a durability, the default for None, or raise InvalidInputError."""
    if value is None:
        return default
    if not isinstance(value, str) or value not in DURABILITIES:
        raise InvalidInputError("durability", f"{shown(value)} is unknown; use one of {', '.join(DURABILITIES)}")
    return value


def check_seconds(field: str, value: Any) -> float:
    """Return a positive, finite number of seconds, or raise InvalidInputError."""
    if not _is_number(value) or not 0 < value <= _LONGEST_S:
        limit = f"{_LONGEST_S:.0f}"
        raise InvalidInputError(field, f"{shown(value)} is not usable; use seconds above 0 and up to {limit}, or None")
    return float(value)


def check_lifetime(field: str, value: Any) -> float:
    """Return a finite number of seconds of at least 0, or raise InvalidInputError."""
    if not _is_number(value) or not 0 <= value <= _LONGEST_S:
        raise InvalidInputError(
            field, f"{shown(value)} is not usable; use a number of seconds from 0 to {_LONGEST_S:.0f}, or None"
        )
    return float(value)


def delay_milliseconds(value: Any) -> int:
    """Return a delay given in seconds as ms, rounded up, or raise InvalidInputError."""
    if not _is_number(value) or not 0 <= value <= _LONGEST_S:
        raise InvalidInputError(
            "delay", f"{shown(value)} is not usable; use a number of seconds from 0 to {_LONGEST_S:.0f}"
        )
    milliseconds: int = math.ceil(value * 1000)
    return milliseconds


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_number(value: Any, kind: Any) -> bool:
    """Tell whether a value is a number of that type; a truth value is none."""
    return isinstance(value, kind) and not isinstance(value, bool)
