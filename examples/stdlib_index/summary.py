"""The summary at the end of a run: figures, waits, largest modules, failures by reason. Never changes anything."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.stdlib_index.tally import Tally

_LARGEST = 8
_FILES_SHOWN = 3
_PLACE = re.compile(r" \([^()]+, line \d+\)\Z")


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: what became of its files, how long it took, and its dead letters in `queue:failures`."""

    tally: Tally
    elapsed_s: float
    dead_letters: Sequence[dict[str, Any]]


def print_summary(console: Console, result: Result) -> None:
    """Print all tables."""
    for title, table in (
        ("Summary", figures(result)),
        ("Wait from enqueue to start", waits(result.tally)),
        ("Largest modules", largest(result.tally)),
        ("Failures by reason, from queue:failures", failures(result.dead_letters)),
    ):
        if table.row_count:
            console.print(f"\n{title}", style="bold")
            console.print(table)


def figures(result: Result) -> Table:
    """Return the counts of the run."""
    tally = result.tally
    table = _table()
    for name, value in (
        ("enqueued", f"{len(tally.priorities):,}"),
        ("processed", f"{len(tally.indexed):,}"),
        ("failed", f"{len(tally.failed):,}"),
        ("retried", f"{tally.retried:,}"),
        ("lost", f"{len(tally.missing()):,}"),
        ("time", f"{result.elapsed_s:.1f} s"),
        ("throughput", f"{tally.finished / result.elapsed_s:,.0f} files/s"),
        *((name, f"{_sum(tally, name):,}") for name in ("lines", "functions", "classes", "imports")),
    ):
        table.add_row(name, value)
    return table


def waits(tally: Tally) -> Table:
    """Return the median and the 99th percentile of the waits, for each priority and over all."""
    by_priority: dict[str, list[float]] = {"high": [], "normal": [], "low": [], "all": list(tally.waited_s.values())}
    for path, waited_s in tally.waited_s.items():
        by_priority[tally.priorities[path]].append(waited_s)
    table = _table("priority", "files", "p50", "p99")
    for priority, values in by_priority.items():
        if values:
            p50, p99 = percentile(values, 0.50), percentile(values, 0.99)
            table.add_row(priority, f"{len(values):,}", f"{p50:.2f} s", f"{p99:.2f} s")
    return table


def largest(tally: Tally) -> Table:
    """Return the indexed files with the most lines."""
    table = _table("module", "lines", "functions", "classes", "imports")
    by_lines = sorted(tally.indexed.items(), key=lambda entry: entry[1]["lines"], reverse=True)
    for path, counts in by_lines[:_LARGEST]:
        table.add_row(path, *(f"{counts[name]:,}" for name in ("lines", "functions", "classes", "imports")))
    return table


def failures(dead_letters: Sequence[dict[str, Any]]) -> Table:
    """Return the reasons of the failures, the most frequent first, each with some of its files."""
    files = defaultdict(list)
    for dead_letter in dead_letters:
        reason = f"{dead_letter['error_type']}: {_PLACE.sub('', dead_letter['failure_reason'])}"
        files[reason].append(dead_letter["entity"]["path"])
    table = _table("reason", "files", "such as")
    for reason, paths in sorted(files.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        table.add_row(reason, str(len(paths)), "\n".join(sorted(paths)[:_FILES_SHOWN]))
    return table


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _sum(tally: Tally, name: str) -> int:
    return sum(counts[name] for counts in tally.indexed.values())


def _table(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=bool(headers))
    for i, header in enumerate(headers or ("", "")):
        words = header in {"reason", "such as"}
        table.add_column(header, justify="left" if i == 0 or words else "right", overflow="fold")
    return table
