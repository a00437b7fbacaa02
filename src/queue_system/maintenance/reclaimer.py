"""Takes over what silent workers held. It trusts no clock but its own monotonic one."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from queue_system.broker.access import AccessBackoff
from queue_system.broker.requests import MAX_ITEMS, split_reclaims
from queue_system.broker.shard import Shard
from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError, QueueSystemError, ServerUnreachableError, WrongKeyTypeError
from queue_system.maintenance.judge import Fate, Judge
from queue_system.maintenance.service import PeriodicService
from queue_system.model.formats import id_of, is_dead, lease_s_of, split_value
from queue_system.model.operation import Operation

_LOOKS_PER_LEASE = 7
_WATCHERS = 8
_OWN_SILENCE = 0.6
_WATCH_FIRST = 1.5
_TERM_LEASES = 10
_UNWATCHED = 1.5  # rounds without a sign of anybody who watches
_SOON_S = 0.001
_SHORTEST_LEASE_S = 0.2


@dataclass(slots=True)
class Observation:
    """An incarnation's entry and since when it has not changed."""

    entry: bytes
    since: float


def _ignore(queue: bytes, operation: Operation) -> None:
    pass


class Reclaimer(PeriodicService):
    """Watches all incarnations; reclaims one whose counter stood still for its whole lease while the server answered.

    In a large fleet about eight watch, so that what is read does not grow with the square of the workers. The others
    only check whether any worker watches, and begin at once when none does. `rejected` is called for each dead letter.
    """

    name = "reclaimer"

    def __init__(
        self,
        config: QueueConfig,
        shard: Shard,
        own: Callable[[], str],
        now_ms: Callable[[], int],
        access: AccessBackoff | None = None,
        rejected: Callable[[bytes, Operation], None] = _ignore,
    ) -> None:
        super().__init__(config.log, config.lease_seconds / _LOOKS_PER_LEASE, shard, access)
        self._config = config
        self._own = own
        self._judge = Judge(config, now_ms)
        self._rejected = rejected
        self._seen: dict[str, Observation] = {}
        self._own_seen = Observation(b"", 0.0)
        self._known: set[str] = set()
        self._sign = Observation(b"", 0.0)
        self._last_look = 0.0
        self._fit = True
        self.rests = False
        """Whether it leaves the watch to others, for as long as somebody watches."""
        self._fleet = 1
        """How many incarnations there were when it was drawn who rests."""
        self._watch_s = _WATCH_FIRST * config.lease_seconds
        self._decided_until = SYSTEM_CLOCK.monotonic() + self._watch_s

    def perform(self) -> float:
        """Look once, and take over what is due."""
        now = SYSTEM_CLOCK.monotonic()
        if self.rests and now < self._decided_until:
            if self._is_watched(now):
                return self.interval_s / 2
            self._decided_until = SYSTEM_CLOCK.monotonic() + self._watch_s
        self.rests = False
        return self._watch()

    def decide(self, now: float, incarnations: int) -> bool:
        """Draw, once a term, who rests, since about eight of many workers are enough to watch.

        Nobody rests before having watched long enough to see who is dead.
        """
        if now >= self._decided_until:
            self._decided_until = now + _TERM_LEASES * self._config.lease_seconds
            self._fleet = incarnations
            self.rests = random.random() * incarnations > _WATCHERS
            if self.rests:
                self._seen.clear()
                self._sign = Observation(b"", SYSTEM_CLOCK.monotonic())
        return self.rests

    def sits_out(self) -> bool:
        """Draw whether this worker leaves to others what one at a time does for the whole fleet. From any thread.

        Who watches never does. Of those who rest, about eight at a time do not either: if all who watch die at once,
        nothing is held up until that is noticed.
        """
        return self.rests and random.random() * self._fleet > _WATCHERS

    def failed(self, error: QueueSystemError) -> float:
        """Forget what was seen: silence that nobody watched proves nothing."""
        self._seen.clear()
        return super().failed(error)

    def _is_watched(self, asked: float) -> bool:
        """Return whether some worker has shown recently that it watches."""
        try:
            sign = self.shard.transport.run(self.shard.commands.watched(), retries=0)
        except WrongKeyTypeError:
            return False
        if sign != self._sign.entry:
            self._sign = Observation(sign, SYSTEM_CLOCK.monotonic())
        return asked - self._sign.since < _UNWATCHED * self.interval_s

    def _watch(self) -> float:
        now = SYSTEM_CLOCK.monotonic()
        if now - self._last_look > 4 * self.interval_s:
            self._seen.clear()  # the server was silent: everybody has a whole lease to beat again
        sign = secrets.token_hex(4) if self._fit else ""
        entries = self.shard.transport.run(self.shard.commands.watch(sign), retries=0)
        answered = SYSTEM_CLOCK.monotonic()
        if answered - now > self.interval_s:
            self._seen.clear()
        self._last_look = answered
        self._fit = self._beats(entries.get(self._own(), b""), now, answered)
        if not self._fit:
            self._seen.clear()  # reads are answered, but writes are not: everybody seems silent
        self._claim_orphans({name for name in entries if not is_dead(name)})
        dead = [id_of(name) for name in entries if is_dead(name)]
        dead += [name for name, entry in entries.items() if self._has_died(name, entry, now, answered)]
        random.shuffle(dead)  # so that several who see them share the work
        self._take_over_all(dead)
        for gone in self._seen.keys() - entries.keys():
            del self._seen[gone]
        if any(answered - seen.since > 2 * self._watch_s / 3 for seen in self._seen.values()):
            return self.interval_s  # somebody may be dead
        if self.decide(answered, len(self._seen) + 1):
            return self.interval_s / 2
        return self._until_next_look(SYSTEM_CLOCK.monotonic())

    def _until_next_look(self, now: float) -> float:
        """Return how many s to wait: less than usual if a silence is a lease old before that."""
        ripe = (seen.since + _lease_s(seen.entry) - now for seen in self._seen.values())
        return max(_SOON_S, min(self.interval_s, min(ripe, default=self.interval_s) + _SOON_S))

    def _has_died(self, incarnation: str, entry: bytes, asked: float, answered: float) -> bool:
        """Declare an incarnation dead if it has been silent for its lease; tell whether that was done here."""
        if is_dead(incarnation) or incarnation == self._own():
            return False
        if not self._is_silent(incarnation, entry, asked, answered):
            return False
        del self._seen[incarnation]
        if not self.shard.transport.run(self.shard.commands.declare_dead(incarnation, entry)):
            return False
        self.log.warning("a worker died: its operations run again", incarnation=incarnation)
        return True

    def _is_silent(self, incarnation: str, entry: bytes, asked: float, answered: float) -> bool:
        """Return whether an entry has stood still from an answer to a later question for a whole lease."""
        seen = self._seen.get(incarnation)
        if seen is None or seen.entry != entry:
            self._seen[incarnation] = Observation(entry, answered)
            return False
        return asked - seen.since >= _lease_s(entry)

    def _beats(self, entry: bytes, asked: float, answered: float) -> bool:
        """Return whether this worker's own beats reach the server."""
        if self._own_seen.entry != entry:
            self._own_seen = Observation(entry, answered)
        return asked - self._own_seen.since < _OWN_SILENCE * self._config.lease_seconds

    def _claim_orphans(self, living: set[str]) -> None:
        """Declare workers dead that have lost their entry but still hold items, as after the loss of the table."""
        gone = sorted(self._known - living)
        self._known = living
        for start in range(0, len(gone), MAX_ITEMS):
            self.shard.transport.run(self.shard.commands.orphans("", gone[start : start + MAX_ITEMS]))

    def _take_over_all(self, dead: list[str]) -> None:
        """Take over what dead incarnations held; what this worker cannot judge, others may first, for a look's time."""
        unjudged = [incarnation for incarnation in dead if self._take_over_surely(incarnation, last=False)]
        if unjudged and not self.stopped.wait(self.interval_s):
            for incarnation in unjudged:
                self._take_over_surely(incarnation, last=True)

    def _take_over_surely(self, incarnation: str, *, last: bool) -> bool:
        """Do what `_take_over` does; whatever is wrong with one incarnation harms no other."""
        try:
            return self._take_over(incarnation, last=last)
        except (ServerUnreachableError, AccessDeniedError):
            raise
        except Exception as error:  # noqa: BLE001 - tried again at the next look
            if self._throttle.ready():
                self.log.error(
                    "the operations of a dead worker cannot be taken over yet: trying again",
                    incarnation=incarnation, error=str(error), error_type=type(error).__name__,
                )  # fmt: skip
        return False

    def _take_over(self, incarnation: str, *, last: bool) -> bool:
        """Reclaim what an incarnation held, in one pass; return whether something was left for others to judge."""
        commands = self.shard.commands
        run = self.shard.transport.run
        cursor = ""
        waits = False
        while cursor != "0":
            if self.stopped.is_set():
                return False
            try:
                cursor, held = run(commands.held(incarnation, cursor or "0"))
            except WrongKeyTypeError:
                self.log.error(
                    "a dead worker's key holds a foreign type: nothing to take over", incarnation=incarnation
                )
                run(commands.forget(incarnation))
                return False
            fates = [self._judge.judge(token, value) for token, value in held.items()]
            chosen = [fate for fate in fates if fate.judged or last]
            waits = waits or len(chosen) < len(fates)
            reclaims = [fate.reclaim for fate in chosen if fate.reclaim.how != "reject"]
            for chunk in split_reclaims(reclaims):
                run(commands.reclaim(incarnation, chunk))
            for fate in chosen:
                if fate.reclaim.how == "reject" and run(commands.reclaim(incarnation, (fate.reclaim,)))[0]:
                    self._tell(fate)
        run(commands.reclaim(incarnation, ()))
        return waits

    def _tell(self, fate: Fate) -> None:
        """Log and count a dead letter, in the words of one that a worker writes."""
        self.log.error(
            "operation rejected",
            operation_id=fate.operation_id,
            processor=fate.operation.processor,
            error=fate.error,
            error_type=fate.error_type,
        )
        self._config.metrics.update("errors")
        self._config.metrics.update("system_errors")
        self._rejected(split_value(fate.reclaim.old)[0], fate.operation)


def _lease_s(entry: bytes) -> float:
    return max(_SHORTEST_LEASE_S, lease_s_of(entry, _SHORTEST_LEASE_S))
