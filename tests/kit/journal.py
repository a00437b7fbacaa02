"""What processors did, across processes that may be killed: one line per event. Never buffers a line."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of one run. `at_ns` is the host's monotonic clock, so entries of several processes compare."""

    event: str
    at_ns: int
    pid: int
    operation_id: str
    run: int


@dataclass(frozen=True, slots=True)
class Journal:
    """One journal, which any process may write and read."""

    path: Path

    def note(self, event: str, operation_id: str, run: int = 0) -> None:
        """Append one line with one write(2), so that a SIGKILL leaves whole lines only."""
        line = f"{event} {time.monotonic_ns()} {os.getpid()} {operation_id} {run}\n".encode()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def entries(self, event: str | None = None) -> list[Entry]:
        """Return all entries so far, or those of one event, in the order in which they were written."""
        fields = (line.split() for line in whole_lines(self.path))
        entries = [Entry(kind, int(at), int(pid), name, int(run)) for kind, at, pid, name, run in fields]
        return [entry for entry in entries if event is None or entry.event == event]

    def count(self, event: str) -> Counter[str]:
        """Return how often an event was noted for each operation."""
        return Counter(entry.operation_id for entry in self.entries(event))

    def repeats(self) -> int:
        """Return how many runs came on top of the first one of each operation."""
        starts = self.count("start")
        return starts.total() - len(starts)


def whole_lines(path: Path) -> list[str]:
    """Return the lines of a file that may not be there yet, and whose last line may be a part of one."""
    return path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
