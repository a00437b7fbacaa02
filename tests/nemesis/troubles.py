"""The faults of a history as spans of time, and what they excuse. Never looks at operations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.nemesis.history import Event

SERVER_FAULTS: Final = frozenset({"server_kill", "client_kill", "pause", "pause_writes", "cut"})
"""Those that break the contact between workers and server."""
_EXCUSED_AFTER: Final = 0.5
"""How long a freeze must be, in leases, to excuse a lost lease: beats come every quarter, and a host may be slow."""

Span = tuple[float, float]
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault from the moment before it began to the moment after it was over, in s."""

    name: str
    target: str
    begin: float
    end: float

    @property
    def span(self) -> Span:
        return self.begin, self.end


class Troubles:
    """All faults of a history. `lease_s` is the lease that the workers had."""

    def __init__(self, events: Sequence[Event], lease_s: float) -> None:
        self._lease_s = lease_s
        self.faults = _faults(events)
        self._states = [event for event in events if event.what == "worker"]
        self.server = [fault for fault in self.faults if fault.name in SERVER_FAULTS]
        self._freezes = [fault for fault in self.faults if fault.name == "freeze"]
        self._write_pauses = [fault.span for fault in self.faults if fault.name == "pause_writes"]
        self._ends = {fault.target: fault for fault in reversed(self.faults) if fault.name in {"kill", "stop"}}
        self.deaths = {fault.target: fault for fault in reversed(self.faults) if self._is_death(fault)}
        """By worker, the kill, or the stop that did not come to its orderly end."""

    def ended(self, worker: str) -> bool:
        """Tell whether a worker was killed or stopped at all."""
        return worker in self._ends

    def excuses(self, worker: str, begin: float, end: float) -> bool:
        """Tell whether what a worker held since `begin` may have been given to another one at `end`."""
        death = self.deaths.get(worker)
        if death is not None and death.begin <= end:
            return True
        frozen_s = sum(_overlap(fault.span, (begin, end)) for fault in self._freezes if fault.target == worker)
        if frozen_s == 0:
            return False
        held_up_s = sum(_overlap(span, (begin, end)) for span in self._write_pauses)
        return frozen_s + held_up_s > _EXCUSED_AFTER * self._lease_s

    def losses(self, begin: float, end: float) -> int:
        """Count the faults of a span after which operations of a worker are taken over."""
        long = [fault for fault in self._freezes if fault.end - fault.begin > _EXCUSED_AFTER * self._lease_s]
        return sum(_overlap((begin, end), fault.span) > 0 for fault in [*self.deaths.values(), *long])

    def calm(self, begin: float, end: float, seconds: float) -> bool:
        """Tell whether there was a stretch of so many s in which the server and one and the same worker were well."""
        for worker, up in self._lives():
            freezes = [fault.span for fault in self._freezes if fault.target == worker]
            spans: list[Span] = [(max(begin, up[0]), min(end, up[1]))]
            for hole in [*freezes, *(fault.span for fault in self.server)]:
                spans = [piece for span in spans for piece in _without(span, hole)]
            if any(last - first >= seconds for first, last in spans):
                return True
        return False

    def _lives(self) -> Iterable[tuple[str, Span]]:
        for event in self._states:
            if event.data["state"] == "ready":
                end = self._ends.get(event.by)
                yield event.by, (event.at, _NEVER if end is None else end.begin)

    def _is_death(self, fault: Fault) -> bool:
        if fault.name != "stop":
            return fault.name == "kill"
        stopped = [event.at for event in self._states if event.by == fault.target and event.data["state"] == "stopped"]
        if not stopped:
            return True
        # A worker that leaves while it has no server leaves behind what it holds.
        near = (fault.begin - self._lease_s, stopped[0])
        return any(trouble.begin <= near[1] and trouble.end >= near[0] for trouble in self.server)


def _faults(events: Iterable[Event]) -> list[Fault]:
    begun = {event.data["n"]: event for event in events if (event.what, event.kind) == ("fault", "invoke")}
    over = {event.data["n"]: event.at for event in events if (event.what, event.kind) == ("fault", "ok")}
    return [
        Fault(event.data["fault"], event.data["target"], event.at, over.get(number, _NEVER))
        for number, event in begun.items()
    ]


def _overlap(one: Span, other: Span) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def _without(span: Span, hole: Span) -> list[Span]:
    pieces = [(span[0], min(span[1], hole[0])), (max(span[0], hole[1]), span[1])]
    return [piece for piece in pieces if piece[0] < piece[1]]
