"""The figures that fault tests report, as one Markdown table. Never judges them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

_COLUMNS = ("injected", "lost", "repeated", "recovery_s")
_HEADING = ("file", "test", *_COLUMNS, "also")
_TITLE = """# Faults

Written by `make faults`: what each test of `tests/faults` injected and counted. Times are in seconds.
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One row for each test that reported figures: its file and name, the usual four, and all others."""

    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, reports: Iterable[pytest.TestReport]) -> Table:
        """Collect what the fault tests among these reports told."""
        told = [report for report in reports if report.when == "call" and "tests/faults/" in report.nodeid]
        return cls(tuple(sorted(_row(report) for report in told if report.user_properties)))

    def update(self, target: Path) -> None:
        """Write the rows into a file that may hold the table already; those of tests that were not run stay."""
        kept = target.read_text().splitlines() if target.exists() else []
        rows = {tuple(row[:2]): row for line in kept if len(row := line[2:-2].split(" | ")) == len(_HEADING)}
        for heading in (_HEADING, tuple("---" for _ in _HEADING)):
            rows.pop(heading[:2], None)
        rows |= {row[:2]: list(row) for row in self.rows}
        target.write_text(f"{_TITLE}\n{Table(tuple(tuple(rows[name]) for name in sorted(rows)))}\n")

    def __str__(self) -> str:
        lines = [_HEADING, tuple("---" for _ in _HEADING), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(report: pytest.TestReport) -> tuple[str, ...]:
    figures = dict(report.user_properties)
    path, _, name = report.nodeid.partition("::")
    name = name.removeprefix("test_").replace("_", " ")
    usual = tuple(_text(figures.pop(column, "")) for column in _COLUMNS)
    also = [f"{key.replace('_', ' ')} {_text(value)}" for key, value in figures.items()]
    file = Path(path).stem.removeprefix("test_").replace("_", " ")
    return file, name, *usual, "; ".join(["FAILED", *also] if report.failed else also)


def _text(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "/")
