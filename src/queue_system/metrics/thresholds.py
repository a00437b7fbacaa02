"""Which change of a metric is worth a log line. Pure."""

from __future__ import annotations

import enum
import math
from typing import Final

_SINGLE_STEPS_UP_TO: Final = 5
_BOUNDARIES: Final = (10, 100, 1000)
_NOTABLE_CHANGE: Final = 0.1
_URGENT_WORDS: Final = ("error", "fail", "timeout")


class Kind(enum.Enum):
    """How a metric combines the values that it is given."""

    COUNTER = enum.auto()
    MEAN = enum.auto()
    GAUGE = enum.auto()


def kind_of(metric_name: str) -> Kind:
    """Return a metric's kind by its name: `avg_*` is a mean, `*_rate` a gauge, everything else a counter."""
    if metric_name.startswith("avg_"):
        return Kind.MEAN
    return Kind.GAUGE if metric_name.endswith("_rate") else Kind.COUNTER


def logs_every_change(metric_name: str) -> bool:
    """Return whether each change is worth a line: the name speaks of an error, a failure or a timeout."""
    lowered = metric_name.lower()
    return any(word in lowered for word in _URGENT_WORDS)


def next_threshold(value: float, *, every_change: bool = False) -> float:
    """Return the total from which on a counter that was logged at `value` is worth the next line.

    The totals are 1 to 5, then 10, 100 and 1000, then 10 % more than last logged. A counter that jumps past several
    of them is worth one line. With `every_change` it is the smallest number above `value`.
    """
    if every_change:
        return math.nextafter(value, math.inf)
    if value < _SINGLE_STEPS_UP_TO:
        return math.floor(value) + 1
    for boundary in _BOUNDARIES:
        if value < boundary:
            return boundary
    return value + -(-value // 10)  # a tenth, rounded up: exact for integers of any size


def quiet_range(value: float, *, every_change: bool = False) -> tuple[float, float]:
    """Return the lowest and highest reading not worth a line after a mean or gauge was logged at `value`."""
    margin = 0.0 if every_change else abs(value) * _NOTABLE_CHANGE
    return value - margin, value + margin
