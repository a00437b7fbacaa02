"""The checks of `doctor` that concern workers: do they beat, and are the operations of dead ones taken over."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec.structs import asdict

from queue_system.broker.presence import Presence
from queue_system.cli.checks import Examination, Level, Look, Result
from queue_system.cli.text import count, span
from queue_system.execution.rests import FULL
from queue_system.inspection.fleet import read_fleet
from queue_system.inspection.workers import MOST_WORKERS, inflight_flow, presences_flow
from queue_system.model.formats import id_of, is_dead, lease_s_of, place_of

_BEATS_PER_LEASE: Final = 4
_PATIENCE: Final = 1.5  # beats
_LONGEST_WATCH_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.2
_UNSERVED_AFTER_S: Final = 5.0
_ABANDONED: Final = "threads passed their time limit"
_FREE: Final = (
    "restart those workers to end the abandoned threads; let their processors end in time, or mark them with"
    " @run_in_process"
)


def workers(exam: Examination) -> Result:
    """Watch the workers' counters until each has moved, for a beat and a half of the slowest at most."""
    first = exam.first_look
    last = exam.look()
    living = {name: entry for name, entry in first.entries.items() if not is_dead(name)}
    waiting = exam.status["total_items"]
    if not living:
        if not waiting:
            return Result(Level.WARN, "no worker is registered; nothing waits", "start one: queue-system worker")
        return Result(
            Level.FAIL,
            f"no worker is registered, but there is work: {count(waiting, 'waiting operation')}",
            "start one: queue-system worker",
        )
    until = first.at + min(_LONGEST_WATCH_S, _PATIENCE * max(map(_lease_s, living.values())) / _BEATS_PER_LEASE)
    while (silent := _silent(living, last)) and last.at < until:
        time.sleep(_LOOK_EVERY_S)  # a counter in a hash offers no event to wait for
        last = exam.look()
    told = exam.read(presences_flow(exam.shard, sorted(living)[:MOST_WORKERS]))
    holds = exam.read(inflight_flow(exam.shard, sorted(living)))
    result = _judge(living, silent, told, holds)
    return result if silent else _unserved(exam, _left_alone(exam, len(living), _given_up(told, result)))


def _silent(living: Mapping[str, bytes], last: Look) -> set[str]:
    """Return the incarnations whose counter has not moved; one that left has."""
    return {name for name, entry in living.items() if last.entries.get(name) == entry}


def _judge(
    living: Mapping[str, bytes], silent: set[str], told: Mapping[str, Presence], holds: Mapping[str, int]
) -> Result:
    details: dict[str, Any] = {
        "workers": [
            {
                "incarnation": name,
                "lease_s": _lease_s(entry),
                "holds": holds[name],
                "beats": name not in silent,
                **(asdict(told[name]) if name in told else {}),
            }
            for name, entry in sorted(living.items())
        ]
    }
    held = sum(worker["holds"] for worker in details["workers"])
    if not silent:
        return Result(
            Level.OK, f"{count(len(living), 'worker')}, all beating; {held} operations in flight", details=details
        )
    longest = span(max(_lease_s(living[name]) for name in silent))
    advice = f"a dead one is reclaimed by another worker within 1.5 leases ({longest}); without another, start one"
    shown = ", ".join(sorted(silent)[:3]) + (", …" if len(silent) > 3 else "")  # noqa: PLR2004
    level = Level.WARN if len(silent) < len(living) else Level.FAIL
    return Result(level, f"{len(silent)} of {count(len(living), 'worker')} did not beat: {shown}", advice, details)


def stuck_leases(exam: Examination) -> Result:
    """Return whether an incarnation was declared dead and nobody takes over what it held."""
    early = {name for name in exam.first_look.entries if is_dead(name)}
    late = {name for name in exam.look().entries if is_dead(name)}
    stuck = exam.read(inflight_flow(exam.shard, [id_of(name) for name in sorted(early & late)]))
    if not stuck:
        return Result(Level.OK, "no operations of dead workers are left")
    return Result(
        Level.FAIL,
        f"not taken over: {count(sum(stuck.values()), 'operation')} of {count(len(stuck), 'dead worker')}",
        "any worker takes them over: start one, or look into the log of those that run",
        {"stuck": stuck},
    )


def _given_up(told: Mapping[str, Presence], result: Result) -> Result:
    """Check which workers have threads or tasks that they gave up at a time limit and that still run."""
    found = {worker: presence.abandoned for worker, presence in told.items() if presence.abandoned}
    if not found:
        return result
    worst = sorted(found, key=lambda worker: (-found[worker], worker))
    shown = ", ".join(f"{place_of(worker) or worker} ({found[worker]:,})" for worker in worst[:3])
    more = ", …" if len(worst) > 3 else ""  # noqa: PLR2004
    sentence = f"threads and tasks passed their time limit and still run in {shown}{more}"
    return Result(Level.WARN, f"{result.sentence}; {sentence}", _FREE, {**result.details, "abandoned": found})


def _left_alone(exam: Examination, living: int, result: Result) -> Result:
    """Check which queues beating workers leave alone, because they cannot resolve or run what these hold."""
    rests: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for rest in exam.status.get("resting", ()):
        rests.setdefault(rest["queue"], []).append(rest["worker"])
        reasons.setdefault(rest["queue"], rest["reason"])
    if not rests:
        return result
    sentences = [
        f"queue {name} is left alone by {len(by)} of {count(living, 'worker')}: {reasons[name]}"
        for name, by in sorted(rests.items())
    ]
    return Result(
        Level.FAIL if any(len(by) >= living for by in rests.values()) else Level.WARN,
        "; ".join([result.sentence, *sentences]),
        _advice(reasons.values(), result.advice),
        {**result.details, "resting": {name: sorted(by) for name, by in rests.items()}},
    )


def _unserved(exam: Examination, result: Result) -> Result:
    """Check which queues hold work that nobody starts although no worker is busy, where nothing else is wrong."""
    if result.level is not Level.OK:
        return result
    stats = read_fleet(exam.config)
    ages: dict[str, float] = {}
    for queue in stats.queues:
        if (age := queue.oldest_age_s) is not None and age >= _UNSERVED_AFTER_S:
            ages[queue.name] = max(age, ages.get(queue.name, 0.0))
    if stats.running or not ages:
        return result
    names = sorted(ages, key=lambda name: -ages[name])
    shown = ", ".join(f"{name} ({span(ages[name])})" for name in names[:3]) + (", …" if len(names) > 3 else "")  # noqa: PLR2004
    return Result(
        Level.WARN,
        f"{result.sentence}; work has waited in {shown}, and no worker starts it",
        "start one that serves it; without --queues it serves all; `queue-system status --workers` names its queues",
        {**result.details, "unserved": {name: ages[name] for name in names}},
    )


def _advice(reasons: Iterable[str], before: str) -> str:
    lacking = "give those workers the code or the dependency that they lack and restart them,"
    advice = {before} - {""}
    for reason in reasons:
        if _ABANDONED in reason:
            advice.add(_FREE)
            continue
        advice.add(f"{lacking} or let each name the queues that it serves (queues=...)")
        if reason.startswith(FULL):
            advice.add("retry or drop dead letters of system_errors, or raise max_dead_letters")
    return "; ".join(sorted(advice))


def _lease_s(entry: bytes) -> float:
    return lease_s_of(entry, 0.0)
