"""Where output goes: one document to stdout; progress, questions and errors to stderr."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from queue_system.cli.exits import ExitCode
from queue_system.cli.text import plain
from queue_system.model.preview import document as pieces

T = TypeVar("T")
Advance = Callable[[int], None]
"""Moves a progress bar on by a number of steps."""

_WIDTH_OF_FILES: Final = 120
_LOOK_EVERY_S: Final = 0.1


class Output:
    """The two streams of one command. Colours appear on a terminal only, and not with NO_COLOR."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    def emit(self, document: Any, view: RenderableType) -> None:
        """Print the answer: the document with --json, else the view of it."""
        if self.as_json:
            sys.stdout.writelines((*pieces(document), "\n"))
        else:
            self.out.print(view)

    def line(self, document: Any) -> None:
        """Print one document of a stream of them, on a line of its own."""
        print(json.dumps(document), flush=True)

    def error(self, message: str) -> None:
        """Print what went wrong, on one line however long it is."""
        self.err.print(plain("Error: ", "bold red"), plain(message), sep="", soft_wrap=True)

    def note(self, message: str) -> None:
        """Print a remark that is not part of the answer."""
        self.err.print(plain(message), soft_wrap=True)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is destroyed; leave the program unless the answer is yes."""
        if yes:
            return
        if not sys.stdin.isatty():
            self.error(f"{question} Nobody is here to answer; --yes answers for you")
            raise typer.Exit(ExitCode.USAGE)
        if not typer.confirm(str(plain(question)), err=True):
            self.note("nothing was changed")
            raise typer.Exit(ExitCode.NEGATIVE)

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Advance]:
        """Show a progress bar while the block runs, on a terminal only; it is gone afterwards."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
        with Progress(
            *columns, MofNCompleteColumn(), TimeElapsedColumn(),
            console=self.err, transient=True, disable=not self.err.is_terminal,
        ) as bar:  # fmt: skip
            task = bar.add_task(what, total=total)
            yield lambda steps: bar.advance(task, steps)

    def follow(self, what: str, work: Callable[[], T], left: Callable[[], int]) -> T:
        """Run one long call and show how far it is, by asking `left` how much remains; raise what it raises."""
        if not self.err.is_terminal:
            return work()
        result: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                result.append(work())
            except BaseException as error:  # noqa: BLE001 - it is raised below
                errors.append(error)

        before = left()
        thread = threading.Thread(target=run, name="queue-system-cli", daemon=True)
        with self.progress(what, before) as advance:
            thread.start()
            while thread.is_alive():
                thread.join(_LOOK_EVERY_S)
                now = left()
                advance(before - now)
                before = now
        if errors:
            raise errors[0]
        return result[0]


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _WIDTH_OF_FILES
    return console
