"""The processes of contestants: start, hear, weigh, end. Never interprets what they measured."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

from benchmarks.environments import ROOT, command
from benchmarks.roster import Contestant

_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
_WORDS = 400  # of an error, characters
_TICKS = os.sysconf("SC_CLK_TCK")


class SilentError(Exception):
    """A contestant ended, or said nothing in time. The message carries what it wrote to standard error."""


class Running:
    """One process of a contestant, with its children. Leaving the context kills them all."""

    def __init__(self, contestant: Contestant, *, source: Path | None = None, **order: object) -> None:
        """Start it; with `source`, a folder, that precedes what is installed."""
        order["variant"] = contestant.variant
        self.name = f"{contestant.name} ({order['role']})"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            command(contestant, order),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore", **({"PYTHONPATH": str(source)} if source else {})},
        )
        self.jobs = 0
        """How many jobs it has told of last."""
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._errors.close()

    def _listen(self) -> None:
        output = self._process.stdout
        if output is None:
            return
        with output:
            for line in output:
                if line.startswith(b'{"event"'):
                    said = json.loads(line)
                    self.jobs = said.get("jobs", self.jobs)
                    self._said.put(said)
        self._said.put({"event": "ended"})

    def hear(self, *events: str, within_s: float) -> dict[str, Any]:
        """Return the next of these events; others are passed over. Raises SilentError."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                said = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if said["event"] in events:
                return said
            if said["event"] == "ended":
                break
        raise SilentError(f"{self.name} said none of {', '.join(events)} in {within_s:.0f} s. {self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return " ".join(line.strip() for line in lines if "rror" in line)[:_WORDS]

    def kill(self) -> None:
        """End the process and its children at once (SIGKILL). Does nothing the second time."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def rss_kb(self) -> int:
        """The resident memory of the process and its children, in KiB."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_KB for pid in self._members())

    @property
    def cpu_s(self) -> float:
        """The processor time that the process and its children have used, in s."""
        return sum(sum(map(int, _stat(pid)[11:13])) for pid in self._members()) / _TICKS

    def _members(self) -> list[int]:
        """Return the processes of the session that the contestant was started in."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if int(_stat(int(entry.name))[3]) == self._process.pid:
                        found.append(int(entry.name))
        return found


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on: the second may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
