"""What a history says of each operation, gathered once. Never judges it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from tests.nemesis.history import Event
from tests.nemesis.troubles import Troubles

ENDED: Final = ("succeeded", "failed", "rejected")
"""The statuses of a record whose operation has ended."""
_TERMINAL_VERBS: Final = ("complete", "fail", "reject")
_SUSPECT_AFTER: Final = 2
_SENT_BACK: Final = ("retry", "release")


@dataclass(slots=True)
class Delivery:
    """One item in flight in one worker under one token. `phase` is empty but for a callback item."""

    by: str
    token: int
    phase: str
    claimed: float
    starts: list[Event] = field(default_factory=list)
    ends: list[Event] = field(default_factory=list)
    verdict: Event | None = None
    answer: Event | None = None

    @property
    def accepted(self) -> bool:
        """Whether the server accepted its verdict, as far as the worker lived to tell."""
        return self.answer is not None and self.answer.kind == "ok"

    @property
    def terminal(self) -> bool:
        """Whether its verdict was to end the operation."""
        return not self.phase and self.verdict is not None and self.verdict.data["verb"] in _TERMINAL_VERBS

    @property
    def sent_back(self) -> bool:
        """Whether its verdict was to let the operation run again."""
        return self.verdict is not None and self.verdict.data["verb"] in _SENT_BACK


@dataclass(slots=True)
class Call:
    """One call of a producer and how it ended; None when the producer did not live to tell."""

    invoke: Event
    outcome: Event | None = None

    def fate(self, operation_id: str) -> str:
        """Return "queued", "known" (by its id), "held" (by its key), "refused" or "unknown"."""
        if self.outcome is None or self.outcome.kind == "info":
            return "unknown"
        if self.outcome.kind == "fail":
            return "refused"
        status, named = self.outcome.data["answers"][self.invoke.data["ids"].index(operation_id)]
        if status == "queued":
            return "queued"
        return "known" if named == operation_id else "held"


@dataclass(slots=True)
class Operation:
    """All that happened to one operation."""

    operation_id: str
    calls: list[Call] = field(default_factory=list)
    deliveries: dict[tuple[str, int, str], Delivery] = field(default_factory=dict)
    callbacks: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def plan(self) -> dict[str, Any]:
        """What the first call asked for."""
        return self.calls[0].invoke.data

    @property
    def key(self) -> str:
        """Its deduplication key, or an empty string."""
        keys, ids = self.plan["keys"], self.plan["ids"]
        return str(keys[ids.index(self.operation_id)]) if keys else ""

    @property
    def added_at(self) -> float | None:
        """When an answer told that it is queued, or None."""
        told = [call.outcome.at for call in self.calls if call.outcome and self._tells(call)]
        return min(told, default=None)

    @property
    def possible(self) -> bool:
        """Whether any call may have added it. A transport that sends again by itself may be told of a later holder."""
        fates = [(call.fate(self.operation_id), call.invoke.data["retries"]) for call in self.calls]
        return any(fate in {"queued", "known", "unknown"} or (fate == "held" and retries) for fate, retries in fates)

    @property
    def runs(self) -> list[tuple[Event, Delivery]]:
        """Return every start of its processor with its delivery, by time."""
        starts = [(start, delivery) for delivery in self.deliveries.values() for start in delivery.starts]
        return sorted(starts, key=lambda entry: entry[0].at)

    def is_suspect(self, at: float) -> bool:
        """Tell whether two of its workers were lost by then, each known by the claim that followed."""
        claims = [each for each in self.deliveries.values() if not each.phase and each.claimed <= at]
        claims.sort(key=lambda delivery: delivery.claimed)
        return sum(not delivery.accepted for delivery in claims[:-1]) >= _SUSPECT_AFTER

    @property
    def endings(self) -> list[Delivery]:
        """The deliveries whose terminal verdict the server accepted, as far as the workers lived to tell."""
        return [delivery for delivery in self.deliveries.values() if delivery.terminal and delivery.accepted]

    @property
    def first_terminal_verdict(self) -> float | None:
        """When a worker first decided that it ends; before that it surely was live."""
        decided = [d.verdict.at for d in self.deliveries.values() if d.terminal and d.verdict is not None]
        return min(decided, default=None)

    def _tells(self, call: Call) -> bool:
        return call.fate(self.operation_id) in {"queued", "known"}


class Facts:
    """A history by operation, with its plan, its faults and its end."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.plan = next(event for event in events if event.what == "plan").data
        self.final = next(event for event in reversed(events) if event.what == "final")
        self.troubles = Troubles(events, self.plan["lease_s"])
        self.heals = [event.at for event in events if event.what == "heal"]
        self.work = [event.at for event in events if event.what in {"run", "callback", "settle"}]
        self.operations: dict[str, Operation] = {}
        self._calls: dict[str, Call] = {}
        for event in events:
            match event.what:
                case "enqueue":
                    self._enqueue(event)
                case "claim" | "run" | "settle" | "callback" if event.data["id"]:
                    self._work(event)
        self.records: dict[str, str] = self.final.data["records"]
        self.dead_letters = {name: _count(self.final.data[name]) for name in ("failures", "system_errors")}
        for operation_id in [*self.records, *self.dead_letters["failures"], *self.dead_letters["system_errors"]]:
            self.operation(operation_id)

    def operation(self, operation_id: str) -> Operation:
        """Return one operation, which is a new one if nothing is known of it."""
        return self.operations.setdefault(operation_id, Operation(operation_id))

    def suspects(self, begin: float, end: float) -> int:
        """Count the operations that were suspects at the end of a span and had not ended at its begin."""
        return sum(each.events[-1].at >= begin and each.is_suspect(end) for each in self.operations.values())

    @cached_property
    def by_key(self) -> dict[str, list[Operation]]:
        """The operations of each deduplication key."""
        found: dict[str, list[Operation]] = defaultdict(list)
        for operation in self.operations.values():
            if operation.calls and operation.key:
                found[operation.key].append(operation)
        return found

    def _enqueue(self, event: Event) -> None:
        name = event.data["call"]
        if event.kind == "invoke":
            self._calls[name] = Call(event)
            for operation_id in event.data["ids"]:
                self.operation(operation_id).calls.append(self._calls[name])
        else:
            self._calls[name].outcome = event
        for operation_id in self._calls[name].invoke.data["ids"]:
            self.operation(operation_id).events.append(event)

    def _work(self, event: Event) -> None:
        operation = self.operation(event.data["id"])
        operation.events.append(event)
        if event.what == "callback":
            operation.callbacks.append(event)
            return
        place = event.by, event.data["token"], event.data.get("phase", "")
        delivery = operation.deliveries.get(place)
        if delivery is None:
            delivery = operation.deliveries[place] = Delivery(*place, claimed=event.at)
        match event.what, event.kind:
            case "run", "invoke":
                delivery.starts.append(event)
            case "run", _:
                delivery.ends.append(event)
            case "settle", "invoke":
                delivery.verdict = event
            case "settle", _:
                delivery.answer = event


def _count(dead_letters: Sequence[Sequence[str]]) -> Counter[str]:
    """Count the dead letters of each operation, those of callbacks not included."""
    return Counter(operation_id for operation_id, phase, _ in dead_letters if not phase)
