"""What processors did, across processes that may be killed: one line per event. Never buffers a line."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE = "FAULTS_JOURNAL"
"""The environment variable that tells a worker process where its journal is."""

_serial = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of one run. `at_ns` is the host's monotonic clock, so entries of several processes compare."""

    event: str
    at_ns: int
    pid: int
    operation_id: str
    run: int


begun: Final = threading.Event()
"""Set when the first run of this process has begun."""


def note(event: str, operation_id: str, run: int = 0) -> None:
    """Append one line with one write(2), so that a SIGKILL leaves whole lines only."""
    line = f"{event} {time.monotonic_ns()} {os.getpid()} {operation_id} {run}\n".encode()
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def begin(operation_id: str) -> int:
    """Note the start of a run and return its number within this process."""
    run = next(_serial)
    note("start", operation_id, run)
    begun.set()
    return run


class Journal:
    """Reads one journal."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self, event: str | None = None) -> list[Entry]:
        """Return all entries so far, or those of one event, in the order in which they were written."""
        if not self.path.exists():
            return []
        whole_lines, _, _ = self.path.read_text().rpartition("\n")  # a reader may see a part of the last one
        fields = (line.split() for line in whole_lines.splitlines())
        entries = [Entry(kind, int(at), int(pid), name, int(run)) for kind, at, pid, name, run in fields]
        return [entry for entry in entries if event is None or entry.event == event]

    def count(self, event: str) -> Counter[str]:
        """Return how often an event was noted for each operation."""
        return Counter(entry.operation_id for entry in self.entries(event))

    def repeats(self) -> int:
        """Return how many runs came on top of the first one of each operation."""
        starts = self.count("start")
        return starts.total() - len(starts)
