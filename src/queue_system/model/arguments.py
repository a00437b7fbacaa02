"""Checks of the arguments of an enqueue that depend on each other. Never talks to Redis."""

from __future__ import annotations

import math
from typing import Any, Final

from queue_system.model.keys import check_identifier
from queue_system.validation import check_choice, check_list, check_seconds, refused

DURABILITIES: Final = ("fast", "fsync", "replicated")
"""What an enqueue waits for: nothing but the server's memory, its disk, or one replica."""


def check_column(field: str, values: Any, length: int) -> list[str] | None:
    """Check one member's values over a whole batch; None stays None. Raises InvalidInputError."""
    if values is None:
        return None
    if len(check_list(field, values)) != length:
        raise refused(field, f"a list of {length:,} values", f"{len(values):,}", "give one value for each entity")
    return [check_identifier(value, f"{field}[{i}]") for i, value in enumerate(values)]


def check_unique(field: str, values: list[str] | None) -> list[str] | None:
    """Return the values, or raise InvalidInputError at the first that is there twice."""
    if values is not None and len(set(values)) != len(values):
        i = next(i for i, value in enumerate(values) if value in values[:i])
        got = f"{values[i]!r} a second time"
        raise refused(f"{field}[{i}]", "a value that is unique in the batch", got, "give each entity its own")
    return values


def check_durability(value: object, default: str = "fast") -> str:
    """Return a durability, the default for None, or raise InvalidInputError."""
    return default if value is None else check_choice("durability", value, DURABILITIES)


def delay_milliseconds(value: object) -> int:
    """Return a delay given in seconds as ms, rounded up, or raise InvalidInputError."""
    return math.ceil(check_seconds("delay", value) * 1000)
