"""The figures that fault tests report, as one Markdown table. Never judges them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

_COLUMNS = ("injected", "lost", "repeated", "recovery_s")


@dataclass(frozen=True, slots=True)
class Table:
    """One row for each test that reported figures: its name, the usual four, and all others."""

    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, reports: Iterable[pytest.TestReport]) -> Table:
        """Collect what the fault tests among these reports told."""
        told = [report for report in reports if report.when == "call" and "tests/faults/" in report.nodeid]
        return cls(tuple(_row(report) for report in sorted(told, key=lambda r: r.nodeid) if report.user_properties))

    def __str__(self) -> str:
        heading = ("test", *_COLUMNS, "also")
        lines = [heading, tuple("---" for _ in heading), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(report: pytest.TestReport) -> tuple[str, ...]:
    figures = dict(report.user_properties)
    name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
    if report.failed:
        name += " (FAILED)"
    usual = tuple(_text(figures.pop(column, "")) for column in _COLUMNS)
    also = "; ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in figures.items())
    return name, *usual, also


def _text(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "/")
