"""Which queues a worker leaves alone for a while: it cannot resolve or run what they hold. Never talks to Redis."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from queue_system.metrics import MetricsRecorder, StructuredLogger
from queue_system.model.operation import Operation

FEW: Final = 5
"""How many unresolvable operations of a queue go to the system errors at once; that many in a row begin a rest."""
SHORTEST_S: Final = 1.0
LONGEST_S: Final = 30.0
REGAIN_S: Final = 60.0
"""Every so often one more may go there."""
_MOST_QUEUES: Final = 1000
_LONGEST_REASON: Final = 200
_TELL_AGAIN_S: Final = 60.0
_UNRESOLVABLE: Final = "this worker cannot resolve what it holds"
_TOO_MANY_ABANDONED: Final = "this worker has abandoned too many threads to run its sync work"
FULL: Final = "system_errors is full"
"""What the reason of a rest begins with where dead letters have to be retried or dropped first."""

_NAME: Final = re.compile(r"[\w.<>#]+\Z")

RestNote: TypeAlias = tuple[str, int, str]
"""What others may know: a queue, for how many ms this worker leaves it alone (0: no longer), and why."""


@dataclass(slots=True)
class _Misses:
    """What could not be resolved of one queue; times are monotonic."""

    reason: str
    since: float
    """When `spare` was last reckoned."""
    in_a_row: int = 0
    spare: float = FEW
    waited: int = 0
    """How many were made to wait."""
    rest_s: float = 0.0
    until: float = 0.0
    told: float = float("-inf")
    problem: str = _UNRESOLVABLE
    kept: int = 0
    """How many have stayed in their queue since the last log line about it, the system errors being full."""
    told_full: float = float("-inf")
    full: bool = False
    noted: str = ""
    """The reason that others know, while they know of a rest."""


class Rests:
    """Judges what this worker cannot resolve, and which queues it leaves alone. Used by one event loop."""

    def __init__(
        self, log: StructuredLogger, metrics: MetricsRecorder, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.queues: dict[str, _Misses] = {}
        """Empty as long as everything could be resolved recently."""
        self._log = log
        self._metrics = metrics
        self._now = now
        self.notes: dict[tuple[str, str], RestNote] = {}
        """What has yet to be reported to others, by queue and reason."""

    def missed(self, queue: str, reason: str) -> tuple[float, bool]:
        """Note that an operation cannot be resolved. Return how long it should wait, and whether it has to.

        One that need not wait goes to the system errors: it is among the few of its queue that may.
        """
        now = self._now()
        misses = self.queues.get(queue)
        if misses is None:
            if len(self.queues) >= _MOST_QUEUES:
                del self.queues[min(self.queues, key=lambda name: self.queues[name].since)]
            misses = self.queues[queue] = _Misses(_short(reason), now)
        _regain(misses, now)
        misses.problem = _UNRESOLVABLE
        misses.in_a_row += 1
        if misses.in_a_row >= FEW:
            self._begin(queue, misses, now)
        wait_s = max(misses.rest_s, min(LONGEST_S, SHORTEST_S * 2.0 ** (misses.waited // FEW)))
        if misses.spare >= 1:
            misses.spare -= 1
            return wait_s, False
        misses.waited = min(misses.waited + 1, FEW * 10)
        return wait_s, True

    def refused(self, queue: str, operation_id: str, processor: str, error: str) -> None:
        """Note that the system errors are full, so that an operation had to wait: its queue rests at once."""
        now = self._now()
        misses = self.queues.setdefault(queue, _Misses(_short(f"{processor}: {error}"), now))
        misses.full = True
        misses.kept = misses.kept + 1
        if now - misses.told_full >= _TELL_AGAIN_S:
            self._log.warning(
                f"{FULL}: what cannot be resolved stays in its queue; retry or drop dead letters,"
                " or raise max_dead_letters",
                queue=queue, kept=misses.kept, operation_id=operation_id, processor=processor, error=error,
            )  # fmt: skip
            misses.told = misses.told_full = now
            misses.kept = 0
        if misses.until <= now:
            self._begin(queue, misses, now)

    def accepted(self, queue: str) -> None:
        """Note that an operation that cannot be resolved went to the system errors: they have room."""
        if (misses := self.queues.get(queue)) is not None:
            misses.full = False

    def hold(self, queue: str, reason: str) -> None:
        """Note that an operation of a queue was handed back, since nothing of its kind can be run here now."""
        now = self._now()
        misses = self.queues.setdefault(queue, _Misses(_short(reason), now))
        misses.reason = _short(reason)
        misses.problem = _TOO_MANY_ABANDONED
        if misses.until <= now:
            self._begin(queue, misses, now)

    def resolved(self, queue: str) -> None:
        """Note that an operation of a queue among `queues` was resolved: a rest of it ends."""
        misses = self.queues.get(queue)
        if misses is None:
            return
        misses.in_a_row = 0
        misses.full = False
        if misses.rest_s:
            misses.rest_s = misses.until = 0.0
            self._note(queue, misses, 0.0)
            self._log.info("the queue is served again", queue=queue)
        _regain(misses, self._now())
        if misses.spare >= FEW:
            del self.queues[queue]

    def resting(self) -> list[str]:
        """Return the queues that are left alone now."""
        if not self.queues:
            return []
        now = self._now()
        return [queue for queue, misses in self.queues.items() if misses.until > now]

    def served(self, names: list[str]) -> list[str] | None:
        """Return what a claim of these queues, or of all if there are none, names; None when all are left alone."""
        if not self.queues or not (resting := self.resting()):
            return names
        return [name for name in names if name not in resting] or None if names else [f"!{name}" for name in resting]

    def left_s(self) -> float | None:
        """Return in how many s the first rest ends; None when there is none."""
        now = self._now()
        return min((misses.until - now for misses in self.queues.values() if misses.until > now), default=None)

    def take_notes(self) -> list[RestNote]:
        """Return what is to be reported to others, and count it as reported."""
        notes = list(self.notes.values())
        self.notes = {}
        return notes

    def _note(self, queue: str, misses: _Misses, rest_s: float) -> None:
        reason = _short(f"{FULL}; {misses.reason}") if misses.full else misses.reason
        if misses.noted and (misses.noted != reason or not rest_s):
            self.notes[queue, misses.noted] = (queue, 0, misses.noted)
        if rest_s:
            self.notes[queue, reason] = (queue, int(rest_s * 1000), reason)
        misses.noted = reason if rest_s else ""

    def _begin(self, queue: str, misses: _Misses, now: float) -> None:
        misses.in_a_row = 0
        misses.rest_s = min(LONGEST_S, max(SHORTEST_S, 2 * misses.rest_s))
        misses.until = now + misses.rest_s
        self._note(queue, misses, misses.rest_s)
        self._metrics.update("queue_rests")
        if now - misses.told >= _TELL_AGAIN_S and misses.rest_s == SHORTEST_S:
            misses.told = now
            self._log.warning(
                f"the queue is left alone: {misses.problem}; other workers go on with it",
                queue=queue, reason=misses.reason, rest_s=misses.rest_s, longest_rest_s=LONGEST_S,
            )  # fmt: skip


def full_name(operation: Operation) -> str:
    """Return the processor of an operation, with its module if that is told."""
    module = f"{operation.processor_module}." if operation.processor_module else ""
    return f"{module}{operation.processor}"


def may_be_known(name: str, module: str | None) -> bool:
    """Return whether another worker may resolve a name: not one that is no name, or leads into the standard library."""
    if not _NAME.match(name) or (module is not None and not _NAME.match(module)):
        return False
    return module is None or module.partition(".")[0] not in sys.stdlib_module_names


def _regain(misses: _Misses, now: float) -> None:
    misses.spare = min(float(FEW), misses.spare + (now - misses.since) / REGAIN_S)
    misses.since = now


def _short(reason: str) -> str:
    text = " ".join(reason.encode(errors="backslashreplace").decode().split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
