"""The history of a run: one JSON line per event, from every process that took part. Never judges it.

Each line has `at` (ns on the host's monotonic clock, so lines of several processes compare), `by` (who wrote it),
`kind` ("invoke", "ok", "fail" or "info") and `what`, with these members besides:

    plan      info    lease_s, progress_s, rerun_s, seed, mutant: what the run promises
    enqueue   invoke  call, ids, keys, retries, delay, fails, attempts, on_success, on_failure
              ok      call, answers: for each id the status and the id that the answer names
              fail    call, error: nothing was sent    info  call, error: nobody knows
    claim     ok      id, token, phase: the item has arrived in the worker
    run       invoke  id, token, attempt    ok, fail (as planned), info (cancelled)  the same
    callback  invoke  id, token, phase      ok  the same
    settle    invoke  id, token, phase, verb: a verdict is decided and may be sent from now on
              ok      the server accepted it            fail  the server answered that the token is lost
    worker    info    state: "ready" or "stopped"
    fault     invoke  n, fault, target      ok  n: it is over
    heal      ok      nothing is out of order any more
    final     ok      what the server holds at the end
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.kit.journal import whole_lines

VARIABLE = "NEMESIS_HISTORY"
"""The environment variable that tells a worker process where the history is."""

Kind = Literal["invoke", "ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Event:
    """One line. `at` is in s."""

    at: float
    by: str
    kind: str
    what: str
    data: dict[str, Any]

    def __str__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.data.items())
        return f"{self.at:.6f} {self.by} {self.kind} {self.what} {told[:300]}"


class History:
    """Appends lines under one name. Safe among processes and threads."""

    def __init__(self, path: Path, by: str) -> None:
        self._by = by
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, kind: Kind, what: str, **data: object) -> None:
        """Append one line with one write(2), so that a SIGKILL leaves whole lines only."""
        line = {"at": time.monotonic_ns(), "by": self._by, "kind": kind, "what": what, **data}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read_history(path: Path) -> list[Event]:
    """Return all events so far by the time at which they happened."""
    return sorted((parse_event(line) for line in whole_lines(path)), key=lambda event: event.at)


def parse_event(line: str) -> Event:
    data = json.loads(line)
    at, by, kind, what = data.pop("at"), data.pop("by"), data.pop("kind"), data.pop("what")
    return Event(at / 1e9, by, kind, what, data)
