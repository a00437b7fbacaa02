"""What has become of each file of a run so far. An event that comes twice, after a crash, counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from examples.stdlib_index.sources import Source


class Tally:
    """The outcomes of one run, by the files' paths."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.priorities = {source.path: source.priority for source in sources}
        self.indexed: dict[str, dict[str, int]] = {}
        """What was counted in each indexed file."""
        self.failed: set[str] = set()
        self.waited_s: dict[str, float] = {}
        """How long each file waited from its enqueue to its first start."""
        self.retried = 0
        """Starts beyond each file's first."""
        self.done: Counter[str] = Counter()
        """How many files of each priority have an outcome."""

    def add(self, event: dict[str, Any]) -> None:
        """Count an event."""
        path = event["path"]
        if event["event"] == "started":
            self.retried += path in self.waited_s
            self.waited_s.setdefault(path, event["waited_s"])
            return
        if path in self.indexed or path in self.failed:
            return
        self.done[self.priorities[path]] += 1
        if event["event"] == "indexed":
            self.indexed[path] = event["counts"]
        else:
            self.failed.add(path)

    @property
    def finished(self) -> int:
        """How many files have an outcome."""
        return len(self.indexed) + len(self.failed)

    def missing(self) -> list[str]:
        """Return the files without an outcome."""
        return [path for path in self.priorities if path not in self.indexed and path not in self.failed]
