"""One run's folder, and the file in it to which workers append what happened. Never talks to Redis."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PREFIX = "stdlib-index-"
_NAME = re.compile(r"\w+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Run:
    """One run, by the name that its operations carry. Raises ValueError for a name that could lead elsewhere."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"{self.name!r:.40} is no run's name: it has other characters than letters, digits and _")

    @classmethod
    def create(cls) -> Run:
        """Make the folder and the empty file of a new run."""
        run = cls(tempfile.mkdtemp(prefix=_PREFIX).rpartition("-")[2])
        run.events.touch()
        return run

    @property
    def folder(self) -> Path:
        """The folder, in the system's place for temporary files."""
        return Path(tempfile.gettempdir(), f"{_PREFIX}{self.name}")

    @property
    def events(self) -> Path:
        """The file of events, one JSON object in each line."""
        return self.folder / "events.jsonl"

    def append(self, **event: Any) -> None:
        """Append an event, whole even where processes write at once; does nothing when the run is over."""
        try:
            descriptor = os.open(self.events, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            return
        try:
            os.write(descriptor, json.dumps(event).encode() + b"\n")
        finally:
            os.close(descriptor)


class EventReader:
    """Reads a run's events as they come."""

    def __init__(self, run: Run) -> None:
        self._path = run.events
        self._position = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):  # still being written
                    return
                self._position += len(line)
                yield json.loads(line)
