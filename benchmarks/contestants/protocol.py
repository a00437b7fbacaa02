"""What every contestant shares: the order it is given, the processors, and how they report. Never imports a queue.

Only the standard library may be used here, for this file runs in the virtual environment of each peer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Payload = dict[str, Any]

_TELL_EVERY = 10
_SHORTEST_S = 0.005
_SPREAD_S = 0.030
_GOLDEN = 0.6180339887
"""Its multiples are spread evenly, and neighbours are far apart: jobs of 5 to 35 ms, the same ones for all."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the runner asks of one process.

    `role` is work, send or batch. `count` is how many jobs to send or to expect; `seconds` bounds sending by time
    instead, and `gap_ms` spaces it. `kind` is what each payload tells its processor: job, timed, jitter, warm or hold.
    `slots` is how many jobs a worker runs at once; 0: as many as suit the contestant best.
    """

    role: str
    url: str
    variant: str = ""
    count: int = 0
    seconds: float = 0.0
    gap_ms: float = 0.0
    kind: str = "job"
    sync: bool = False
    slots: int = 0


@dataclass(frozen=True, slots=True)
class Sender:
    """How a contestant enqueues: `one` payload, and `many` in one call where it can. Both may be coroutines."""

    one: Callable[[Payload], Any]
    many: Callable[[list[Payload]], Any] | None = None


class Module(Protocol):
    """What the file of a contestant defines."""

    def work(self, order: Order) -> None:
        """Run one worker until the process is ended; `order.sync` says which processor it is to serve."""

    def open_sender(self, order: Order) -> Any:
        """Connect, and yield a Sender for the processor that `order.sync` names: a context manager, plain or async."""


def say(event: str, **figures: float) -> None:
    """Tell the runner something as one line of JSON."""
    os.write(1, json.dumps({"event": event, **figures}).encode() + b"\n")


class Probe:
    """Counts and times the jobs of one worker process. The processors call it with every payload."""

    def __init__(self) -> None:
        self._serial = itertools.count(1)  # next() on it is atomic, so threads need no lock
        self._expected = 0
        self._first = 0.0
        self._delays_ms: list[float] = []

    def expect(self, count: int) -> None:
        """Report when the `count`-th job has been processed."""
        self._expected = count

    def count(self, payload: Payload) -> float:
        """Note one job, and return how many s it is to take: what its payload asks decides both."""
        if len(payload) > 1:
            return self._note_special(payload)
        number = next(self._serial)
        if number == 1:
            self._first = time.monotonic()
            say("first")
        if number == self._expected:
            say("done", seconds=time.monotonic() - self._first, jobs=number)
        return 0.0

    def _note_special(self, payload: Payload) -> float:
        match payload["kind"]:
            case "jitter":
                if (number := next(self._serial)) % _TELL_EVERY == 0:
                    say("some", jobs=number)
                place: int = payload["n"]
                return _SHORTEST_S + _SPREAD_S * (place * _GOLDEN % 1.0)
            case "timed":
                self._delays_ms.append((time.monotonic_ns() - payload["sent"]) / 1e6)
                if len(self._delays_ms) == self._expected:
                    ranked = sorted(self._delays_ms)
                    say("done", p50=ranked[len(ranked) // 2], p99=ranked[int(len(ranked) * 0.99)])
            case "warm":
                say("warm")
            case _:
                say("held", at=time.monotonic())
                time.sleep(600)  # the runner kills this process meanwhile
        return 0.0


PROBE = Probe()


async def noop(payload: Payload) -> None:
    """Do nothing, asynchronously, or wait for as long as the payload asks."""
    if wait_s := PROBE.count(payload):
        await asyncio.sleep(wait_s)


def noop_sync(payload: Payload) -> None:
    """Do nothing, in a thread."""
    PROBE.count(payload)


def make_payload(order: Order, number: int) -> Payload:
    """Return what the job of this number carries. Plain jobs have one member, the others say their kind."""
    if order.kind == "job":
        return {"n": number}
    return {"n": number, "kind": order.kind, "sent": time.monotonic_ns()}
