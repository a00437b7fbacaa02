"""Medians, spreads and ratios of what the results file holds. Never formats a document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """The values of several runs."""

    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    def text(self, digits: int = 0) -> str:
        """Return the median, and behind it the smallest and largest value if there are several."""
        middle = f"{self.middle:,.{digits}f}"
        if len(self.values) == 1:
            return middle
        return f"{middle} ({min(self.values):,.{digits}f} to {max(self.values):,.{digits}f})"


class Suite:
    """The contestants of one suite, by name."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.contestants: dict[str, Any] = data.get("contestants", {})

    def __contains__(self, name: str) -> bool:
        return name in self.contestants

    def figure(self, name: str, measure: str, part: str) -> Figure | None:
        """Return one figure, or None if it was not measured."""
        values = self.contestants.get(name, {}).get("values", {}).get(measure, {}).get(part)
        return Figure(tuple(values)) if values else None

    def middle(self, name: str, measure: str, part: str) -> float | None:
        """Return the median of one figure, or None if it was not measured."""
        figure = self.figure(name, measure, part)
        return figure.middle if figure else None

    def ratio(self, name: str, other: str, measure: str, part: str) -> float | None:
        """Return by how much the figure of the first exceeds that of the other, or None."""
        return divide(self.middle(name, measure, part), self.middle(other, measure, part))

    def reason(self, name: str, measure: str) -> str:
        """Return why a measure is missing."""
        return str(self.contestants.get(name, {}).get("reasons", {}).get(measure, "not measured"))

    def measures(self, name: str) -> Iterator[str]:
        """Yield the measures that were taken of a contestant."""
        yield from self.contestants.get(name, {}).get("values", {})


def divide(upper: float | None, lower: float | None) -> float | None:
    """Return the quotient, or None if one of the two is missing."""
    return None if upper is None or not lower else upper / lower
