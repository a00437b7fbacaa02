"""Processes of Python that tests start, signal and kill. Never waits for one longer than it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kit.source import ROOT, SRC


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process that imports our source and our tests; `variables` besides."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(SRC), str(ROOT)]), **variables}


class PythonProcess:
    """`python ARGUMENTS`, with its stderr in a file; `options` are those of `subprocess.Popen`."""

    def __init__(self, *arguments: str, log: Path, variables: dict[str, str], **options: Any) -> None:
        self._log = log
        options = {"cwd": ROOT, "env": environment(**variables), "text": True, **options}
        with log.open("ab") as errors:
            self.process: subprocess.Popen[str] = subprocess.Popen(
                [sys.executable, *arguments], stderr=errors, **options
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Signal this process, and none else; return at once."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it by SIGKILL, also when it is stopped, and wait for its end."""
        self.process.kill()
        self.process.wait()

    def wait_end(self, within_s: float) -> int:
        """Wait for its end and return its exit code; raise AssertionError with its log if it does not come."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {within_s} s; its log:\n{self.log}") from None


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and not yet waited for."""
    try:
        tasks = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for text in tasks for child in text.split()]


def descendants_of(pid: int) -> Iterator[int]:
    """The same, and those that they have started."""
    for child in children_of(pid):
        yield child
        yield from descendants_of(child)
