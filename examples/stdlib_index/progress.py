"""Shows a run as it goes: bars on a terminal, a line now and then elsewhere. Never waits."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.stdlib_index.tally import Tally

Show = Callable[[], None]

_LINE_EVERY_S = 2.0


@contextlib.contextmanager
def show_progress(console: Console, tally: Tally) -> Iterator[Show]:
    """Give a function that shows how far the tally has come; call it often."""
    if sys.stdout.isatty() and console.is_interactive:
        with _bars(console, tally) as show:
            yield show
    else:
        yield _lines(console, tally)


@contextlib.contextmanager
def _bars(console: Console, tally: Tally) -> Iterator[Show]:
    columns = (TextColumn("{task.description:<7}"), BarColumn(26), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as progress:
        totals = Counter(tally.priorities.values())
        bars = {
            priority: progress.add_task(priority, total=totals[priority], note="")
            for priority in ("high", "normal", "low")
            if totals[priority]
        }
        everything = progress.add_task("all", total=len(tally.priorities), note="")

        def show() -> None:
            for priority, bar in bars.items():
                progress.update(bar, completed=tally.done[priority])
            note = f"{len(tally.failed)} failed, {tally.retried} retried"
            progress.update(everything, completed=tally.finished, note=note)

        yield show
        show()


def _lines(console: Console, tally: Tally) -> Show:
    due = 0.0

    def show() -> None:
        nonlocal due
        if tally.finished and time.monotonic() >= due:
            due = time.monotonic() + _LINE_EVERY_S
            console.print(
                f"{tally.finished:>6} of {len(tally.priorities)} files done,"
                f" {len(tally.failed)} failed, {tally.retried} retried"
            )
            console.file.flush()

    return show
