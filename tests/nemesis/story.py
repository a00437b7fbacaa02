"""Writes histories by hand, for the tests of the checker: sound unless a test breaks them. Never runs anything."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.nemesis.history import Event, Kind

STEP_S: Final = 0.01
_STATUS: Final = {"complete": "succeeded", "fail": "failed", "retry": "delayed", "release": "queued"}


class Story:
    """A history and what the server would hold at its end: three workers, a lease of 1 s, each event takes 10 ms."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}
        self.dead_letters: dict[str, list[list[str]]] = {"failures": [], "system_errors": []}
        self.counters: Counter[str] = Counter()
        self._events: list[Event] = []
        self._now = 100.0
        self._token = 0
        self._serial = 0
        self._add("nemesis", "info", "plan", lease_s=1.0, progress_s=10.0, rerun_s=4.5)
        for worker in ("w1", "w2", "w3"):
            self._add(worker, "info", "worker", state="ready")

    def wait(self, seconds: float) -> None:
        self._now += seconds

    def enqueue(
        self,
        operation_id: str,
        *,
        answer: str = "queued",
        key: str = "",
        delay: float = 0.0,
        fails: int = 0,
        on_success: bool = False,
        on_failure: bool = False,
    ) -> None:
        """Enqueue; `answer` is "queued", "known", "held" or "unknown". An unknown outcome was: queued."""
        self._serial += 1
        call = f"p/{self._serial}"
        self._add(
            "p", "invoke", "enqueue", call=call, ids=[operation_id], keys=[key] if key else [], retries=0, delay=delay,
            fails=fails, attempts=1, on_success=on_success, on_failure=on_failure,
        )  # fmt: skip
        if answer in {"queued", "unknown"}:
            self.records[operation_id] = "queued"
            self.counters["enqueued"] += 1
        if answer == "unknown":
            self._add("p", "info", "enqueue", call=call, error="ServerUnreachableError")
            return
        named = "another" if answer == "held" else operation_id
        status = "queued" if answer == "queued" else "duplicate"
        self._add("p", "ok", "enqueue", call=call, answers=[[status, named]])

    def claim(self, operation_id: str, by: str) -> int:
        self._token += 1
        self._add(by, "ok", "claim", id=operation_id, token=self._token, phase="")
        return self._token

    def run(self, operation_id: str, by: str, token: int, end: Kind = "ok") -> None:
        self._add(by, "invoke", "run", id=operation_id, token=token, attempt=0)
        self._add(by, end, "run", id=operation_id, token=token, attempt=0)

    def settle(self, operation_id: str, by: str, token: int, verb: str, *, accepted: bool = True) -> None:
        """Let a worker settle; what is not accepted changes nothing on the server."""
        told = {"id": operation_id, "token": token, "phase": "", "verb": verb}
        self._add(by, "invoke", "settle", **told)
        self._add(by, "ok" if accepted else "fail", "settle", **told)
        if not accepted:
            return
        self.records[operation_id] = _STATUS[verb]
        if verb == "complete":
            self.counters["processed"] += 1
        elif verb == "fail":
            self.counters["failed"] += 1
            self.dead_letters["failures"].append([operation_id, "", "PlannedError"])

    def serve(self, operation_id: str, by: str = "w1", verb: str = "complete") -> None:
        """Claim, run and settle."""
        token = self.claim(operation_id, by)
        self.run(operation_id, by, token, "ok" if verb == "complete" else "fail")
        self.settle(operation_id, by, token, verb)

    def callback(self, operation_id: str, phase: str, by: str = "w1") -> None:
        self._add(by, "invoke", "callback", id=operation_id, token=self._token, phase=phase)
        self._add(by, "ok", "callback", id=operation_id, token=self._token, phase=phase)

    @contextlib.contextmanager
    def fault(self, name: str, target: str) -> Iterator[None]:
        """Inflict a fault for as long as the block takes."""
        self._serial += 1
        number = self._serial
        self._add("nemesis", "invoke", "fault", n=number, fault=name, target=target)
        yield
        self._add("nemesis", "ok", "fault", n=number, fault=name, target=target)

    def end(self) -> list[Event]:
        """Write the final reading and return the history."""
        waiting = sum(status in {"queued", "delayed"} for status in self.records.values())
        counters = dict(self.counters)
        self._add(
            "nemesis", "ok", "final", records=self.records, waiting=waiting, callbacks=0, counters=counters,
            **self.dead_letters,
        )  # fmt: skip
        return self._events

    def _add(self, by: str, kind: Kind, what: str, **data: object) -> None:
        self._now += STEP_S
        self._events.append(Event(self._now, by, kind, what, dict(data)))
