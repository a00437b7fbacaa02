"""Decides from a history alone whether the queue kept its promises, C1 to C11. Never talks to a server or a worker.

What is sound for which promise: fences (C6) are the tokens that workers note when an item arrives. A terminal
settlement (C4) is one that the server answered as accepted to a worker that lived to note it; since a worker may die
before that, the server's own counters, raised inside the script that settles, must also equal the records that have
ended. A fault excuses what it could cause and no more: see `Troubles.excuses`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tests.nemesis.facts import ENDED, Delivery, Facts, Operation
from tests.nemesis.history import Event

_CLOCK_S: Final = 0.05
"""How far the server's clock may stray from the monotonic one within an operation's delay."""
_POISON: Final = 4
_SHOWN: Final = 14
_ALONE_S: Final = 1.2
"""How long a suspect keeps others waiting: twice its neighbours' longest run, twice its own."""
_TURN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise and the events that show it."""

    promise: str
    problem: str
    evidence: tuple[Event, ...] = ()

    def __str__(self) -> str:
        left_out = len(self.evidence) - _SHOWN
        lines = [f"{self.promise}: {self.problem}", *(f"    {event}" for event in self.evidence[:_SHOWN])]
        return "\n".join([*lines, f"    and {left_out} more"] if left_out > 0 else lines)


def check(events: Sequence[Event]) -> list[Violation]:
    """Return every violation that a whole history, from its plan to its final reading, shows."""
    facts = Facts(events)
    return [violation for promise in PROMISES for violation in promise(facts)]


def nothing_is_lost(facts: Facts) -> Iterator[Violation]:
    """C1: every enqueue that was answered ended in an acknowledgement or a dead letter."""
    for each in facts.operations.values():
        status = facts.records.get(each.operation_id)
        if each.added_at is None and status is None and not each.deliveries:
            continue  # nobody knew the outcome, and it was: nothing
        if status not in ENDED:
            yield _of("C1", f"was enqueued and has not ended: its record says {status}", each)
        elif status == "succeeded" and not any(_completed(delivery) for delivery in each.deliveries.values()):
            yield _of("C1", "was acknowledged, and no run of it completed", each)
        elif status != "succeeded" and not facts.dead_letters[_list_of(status)][each.operation_id]:
            yield _of("C1", f"is {status}, and {_list_of(status)} holds no dead letter of it", each)


def nothing_is_unexpected(facts: Facts) -> Iterator[Violation]:
    """C2: nothing runs that was not enqueued, before it is due, with another outcome or callback than its own."""
    for each in facts.operations.values():
        status, dead_letters = facts.records.get(each.operation_id), facts.dead_letters
        if not each.possible:
            if each.deliveries or status or any(counts[each.operation_id] for counts in dead_letters.values()):
                yield _of("C2", "exists, and no call can have added it", each)
            continue
        if status in ENDED and status not in _expected(each, facts):
            yield _of("C2", f"is {status}, which is not what its processor was to make of it", each)
        due = each.calls[0].invoke.at + each.plan["delay"]
        if each.runs and each.runs[0][0].at < due - _CLOCK_S:
            yield _of("C2", f"ran {due - each.runs[0][0].at:.3f} s before it was due", each)
        wanted = "on_success" if status == "succeeded" else "on_failure"
        if any(event.data["phase"] != wanted or not each.plan[wanted] for event in each.callbacks):
            yield _of("C2", f"is {status}, and another callback ran", each)


def nothing_starts_after_its_end(facts: Facts) -> Iterator[Violation]:
    """C3: no run starts after the acknowledgement; but a frozen worker cannot know of it."""
    for each in facts.operations.values():
        ended = min((ending.answer.at for ending in each.endings if ending.answer), default=float("inf"))
        for start, delivery in each.runs:
            if start.at > ended and not facts.troubles.excuses(delivery.by, delivery.claimed, start.at):
                yield _of("C3", f"was started by {delivery.by} {start.at - ended:.3f} s after its end", each)


def everything_ends_once(facts: Facts) -> Iterator[Violation]:
    """C4: each operation has exactly one terminal settlement and at most one dead letter."""
    for each in facts.operations.values():
        if len(each.endings) > 1:
            yield _of("C4", f"ended {len(each.endings)} times", each)
        status = facts.records.get(each.operation_id)
        if status in {"succeeded", "failed"} and each.first_terminal_verdict is None:
            yield _of("C4", f"is {status}, and no worker decided that", each)
        dead_letters = sum(counts[each.operation_id] for counts in facts.dead_letters.values())
        if dead_letters > 1:
            yield _of("C4", f"has {dead_letters} dead letters", each)
    ended, counters = list(facts.records.values()), facts.final.data["counters"]
    for status, name in (("succeeded", "processed"), ("failed", "failed"), ("rejected", "rejected")):
        if ended.count(status) != counters.get(name, 0):
            problem = f"{ended.count(status)} operations are {status}, and the server counted {counters.get(name, 0)}"
            yield Violation("C4", problem)


def faults_alone_repeat(facts: Facts) -> Iterator[Violation]:
    """C5: a run that is followed by another one was to be, or its worker suffered a fault meanwhile."""
    for each in facts.operations.values():
        for (_, delivery), (following, other) in pairwise(each.runs):
            answered = delivery.accepted and (delivery.sent_back or delivery.terminal)
            told_at_the_end = delivery.sent_back and delivery.answer is None and facts.troubles.ended(delivery.by)
            if answered or told_at_the_end or delivery is other:
                continue
            if not facts.troubles.excuses(delivery.by, delivery.claimed, following.at):
                yield _of("C5", f"ran again on {other.by}, and no fault hit {delivery.by}, where it ran", each)


def fences_grow(facts: Facts) -> Iterator[Violation]:
    """C6: each run of an operation has a greater token than the one before, and the one that ends it the greatest."""
    for each in facts.operations.values():
        for (_, before), (start, delivery) in pairwise(each.runs):
            if delivery.token == before.token:
                yield _of("C6", f"ran twice under token {delivery.token}", each)
            elif delivery.token < before.token and not facts.troubles.excuses(delivery.by, delivery.claimed, start.at):
                yield _of("C6", f"ran under {delivery.token} after {before.token}", each)
        greatest = max((d.token for d in each.deliveries.values() if not d.phase), default=0)
        for ending in each.endings:
            if ending.token < greatest:
                yield _of("C6", f"was ended under {ending.token} though {greatest} had been given out", each)


def keys_have_one_holder(facts: Facts) -> Iterator[Violation]:
    """C7: of two operations with one deduplication key, one has ended before the other is live."""
    for key, operations in facts.by_key.items():
        lives = sorted(
            (life, each.operation_id) for each in operations if (life := _surely_live(each)) and life[0] < life[1]
        )
        latest, holder = 0.0, ""
        for (begin, end), operation_id in lives:
            if begin < latest:
                events = facts.operations[holder].events + facts.operations[operation_id].events
                evidence = tuple(sorted(events, key=lambda event: event.at))
                problem = f"{holder} and {operation_id} were live at once under {key} for {latest - begin:.3f} s"
                yield Violation("C7", problem, evidence)
            if end > latest:
                latest, holder = end, operation_id


def callbacks_run(facts: Facts) -> Iterator[Violation]:
    """C8: each callback that an operation's end calls for has completed at least once, or is dead-lettered."""
    dead = {operation_id for operation_id, phase, _ in facts.final.data["system_errors"] if phase}
    for each in facts.operations.values():
        status = facts.records.get(each.operation_id)
        if not each.calls or status not in ENDED or each.operation_id in dead:
            continue
        wanted = "on_success" if status == "succeeded" else "on_failure"
        if each.plan[wanted] and not any(event.kind == "ok" for event in each.callbacks):
            yield _of("C8", f"is {status}, and its {wanted} has not run to its end", each)


def everything_is_somewhere(facts: Facts) -> Iterator[Violation]:
    """C9: what the server counted in equals what it counted out and what waits; and the records agree with both."""
    counters, waiting = facts.final.data["counters"], facts.final.data["waiting"]
    enqueued = counters.get("enqueued", 0)
    gone = sum(counters.get(name, 0) for name in ("processed", "failed", "rejected"))
    if enqueued != gone + waiting:
        yield Violation("C9", f"{enqueued} enqueued, but {gone} ended and {waiting} wait", (facts.final,))
    if enqueued != len(facts.records):
        yield Violation("C9", f"{enqueued} enqueued, but there are {len(facts.records)} records", (facts.final,))


def the_dead_are_relieved(facts: Facts) -> Iterator[Violation]:
    """C10: what a dead worker held is claimed and run again in bounded time, while server and some worker are well.

    A suspect is claimed as soon as anything else. It runs when nothing else does in its process: with `S` suspects, and
    nothing that runs for longer than 0.3 s, within 1.2 s for each of them and a turn of 1 s (decision 27).
    """
    bound = facts.plan["rerun_s"]
    for each in facts.operations.values():
        for delivery in each.deliveries.values():
            death = facts.troubles.deaths.get(delivery.by)
            if death is None or delivery.answer is not None or delivery.phase:
                continue
            claimed = min((d.claimed for d in each.deliveries.values() if d.claimed > death.begin), default=None)
            ran = min((start.at for start, _ in each.runs if start.at > death.begin), default=None)
            run_bound = bound
            if ran is not None and each.is_suspect(ran):
                run_bound += _ALONE_S * facts.suspects(death.begin, ran) + _TURN_S
            for what, again, limit in (("was claimed", claimed, bound), ("ran", ran, run_bound)):
                if again is not None and facts.troubles.calm(death.end, again, limit):
                    after_s = again - death.begin
                    problem = f"{what} again {after_s:.2f} s after {delivery.by} died, with over {limit:.1f} s calm"
                    yield _of("C10", problem, each)


def work_goes_on(facts: Facts) -> Iterator[Violation]:
    """C11: after a heal, the next run or settlement comes in bounded time if there is work and the calm lasts."""
    bound = facts.plan["progress_s"]
    heals = [*facts.heals, *(fault.end for fault in facts.troubles.server)]
    for healed in sorted(heals):
        limit = healed + bound
        if limit > facts.final.at or not facts.troubles.calm(healed, limit, 0.99 * bound):
            continue
        if any(healed < at <= limit for at in facts.work):
            continue
        open_then = [each for each in facts.operations.values() if _is_open(each, facts, healed)]
        if open_then:
            yield _of("C11", f"and {len(open_then) - 1} more waited {bound:.1f} s after a heal", open_then[0])


PROMISES: Final[tuple[Callable[[Facts], Iterator[Violation]], ...]] = (
    nothing_is_lost, nothing_is_unexpected, nothing_starts_after_its_end, everything_ends_once, faults_alone_repeat,
    fences_grow, keys_have_one_holder, callbacks_run, everything_is_somewhere, the_dead_are_relieved, work_goes_on,
)  # fmt: skip


def summary(events: Sequence[Event]) -> dict[str, object]:
    """Return what a history amounts to: operations, repeated runs, and how many faults of each kind there were."""
    facts = Facts(events)
    healed = max(facts.heals, default=facts.final.at)
    names = [fault.name for fault in facts.troubles.faults if fault.begin < healed]
    operations = facts.operations.values()
    fates = [call.fate(each.operation_id) for each in operations for call in each.calls]
    sent_back = sum(
        d.accepted and d.sent_back and bool(d.starts) for each in operations for d in each.deliveries.values()
    )
    runs = sum(len(each.runs) for each in operations)
    ran = sum(bool(each.runs) for each in operations)
    return {
        "injected": len(names),
        "faults": {name: names.count(name) for name in sorted(set(names))},
        "enqueued": len(facts.records),
        "unknown_outcomes": fates.count("unknown"),
        "lost": sum(violation.promise == "C1" for violation in nothing_is_lost(facts)),
        "runs": runs,
        "repeated": runs - ran - sent_back,
    }


def _of(promise: str, problem: str, operation: Operation) -> Violation:
    return Violation(promise, f"{operation.operation_id} {problem}", tuple(operation.events))


def _completed(delivery: Delivery) -> bool:
    return any(event.kind == "ok" for event in delivery.ends)


def _list_of(status: str) -> str:
    return "failures" if status == "failed" else "system_errors"


def _expected(operation: Operation, facts: Facts) -> set[str]:
    plan = operation.plan
    expected = {"failed" if plan["fails"] >= plan["attempts"] else "succeeded"}
    last = operation.events[-1].at + facts.plan["lease_s"]
    if facts.troubles.losses(operation.calls[0].invoke.at, last) >= _POISON:
        expected.add("rejected")
    return expected


def _surely_live(operation: Operation) -> tuple[float, float] | None:
    """Return the span in which an operation was live whatever delays there were on the way to the server."""
    queued = [c.outcome.at for c in operation.calls if c.outcome and c.fate(operation.operation_id) == "queued"]
    begins = [*queued, *(start.at for start, _ in operation.runs)]
    end = operation.first_terminal_verdict
    return (min(begins), end) if begins and end is not None else None


def _is_open(operation: Operation, facts: Facts, at: float) -> bool:
    added_at = operation.added_at
    if added_at is None or added_at + operation.plan["delay"] > at:
        return False
    decided = operation.first_terminal_verdict
    return decided > at if decided is not None else facts.records.get(operation.operation_id) not in ENDED
