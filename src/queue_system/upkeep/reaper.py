"""Takes over what silent incarnations held. Never trusts a clock but its own monotonic one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from queue_system.broker.commands import Move
from queue_system.config import QueueConfig
from queue_system.errors import QueueSystemError, UndecodableItemError
from queue_system.model.keys import split_queue
from queue_system.model.operation import PHASE_FAILURE, Operation, change_item, decode_item
from queue_system.model.record import encode_error, encode_letter, encode_record
from queue_system.upkeep.duty import Duty

MAX_CRASHES = 4
_LOOKS_PER_LEASE = 7
_WATCHERS = 8
_WATCH_LEASES = 10
_CHUNK = 100
_DEAD = "dead:"
_POISON = "WorkerDied"


@dataclass(slots=True)
class Observation:
    """An incarnation's entry and since when it has not changed."""

    entry: bytes
    since: float


class Reaper(Duty):
    """Watches all incarnations; reclaims one whose counter stood still for its whole lease, with unbroken contact."""

    name = "reaper"

    def __init__(self, config: QueueConfig, own: Callable[[], str], now_ms: Callable[[], int]) -> None:
        super().__init__(config.log, config.lease_seconds / _LOOKS_PER_LEASE)
        self._config = config
        self._own = own
        self._now_ms = now_ms
        self._seen: dict[str, Observation] = {}
        self._last_look = 0.0
        self._decided_until = 0.0
        self._ttl_ms = int(config.result_ttl * 1000) or 60_000

    def perform(self) -> float:
        """Look once, and take over what is due."""
        now = time.monotonic()
        if now - self._last_look > 4 * self.interval_s:
            self._seen.clear()  # contact was broken: everybody has a whole lease to beat again
        entries = self._config.transport.run(self._config.commands.incarnations(), retries=0)
        answered = time.monotonic()
        if answered - now > self.interval_s:
            self._seen.clear()
        self._last_look = answered
        for incarnation, entry in entries.items():
            if incarnation.startswith(_DEAD):
                self._take_over(incarnation.removeprefix(_DEAD))
            elif incarnation != self._own() and self._is_silent(incarnation, entry, now):
                if self._config.transport.run(self._config.commands.mark(incarnation, entry)):
                    self.log.warning("a worker died: its operations run again", incarnation=incarnation)
                    self._take_over(incarnation)
                self._seen.pop(incarnation, None)
        for gone in self._seen.keys() - entries.keys():
            del self._seen[gone]
        return self.next_wait_s(answered, len(entries))

    def next_wait_s(self, now: float, incarnations: int) -> float:
        """Return when to look again: soon, or after some leases, since about eight of many workers are enough to watch.

        Otherwise what a fleet reads would grow with the square of its workers.
        """
        if now < self._decided_until:
            return self.interval_s
        watch_s = _WATCH_LEASES * self._config.lease_seconds
        self._decided_until = now + watch_s
        if random.random() * incarnations <= _WATCHERS:
            return self.interval_s
        self._seen.clear()
        return watch_s

    def failed(self, error: QueueSystemError) -> float:
        """Forget what was seen: silence that nobody watched proves nothing."""
        self._seen.clear()
        return super().failed(error)

    def _is_silent(self, incarnation: str, entry: bytes, now: float) -> bool:
        seen = self._seen.get(incarnation)
        if seen is None or seen.entry != entry:
            self._seen[incarnation] = Observation(entry, now)
            return False
        return now - seen.since >= _lease_s(entry)

    def _take_over(self, incarnation: str) -> None:
        commands, run = self._config.commands, self._config.transport.run
        cursor, left = "0", 1
        while left and not self.stopped.is_set():
            cursor, held = run(commands.held(incarnation, cursor))
            entries = list(held.items())
            for start in range(0, len(entries) or 1, _CHUNK):
                moves = [self._move(token, value) for token, value in entries[start : start + _CHUNK]]
                _, left = run(commands.move(incarnation, moves))

    def _move(self, token: bytes, value: bytes) -> Move:
        queue, _, item = value.partition(b"\n")
        now = self._now_ms() / 1000
        try:
            if split_queue(queue) is None:
                raise UndecodableItemError("it came from no queue of ours")
            operation = decode_item(item)
        except UndecodableItemError as error:
            return Move(token, value, "reject", encode_letter(item, queue, str(error), type(error).__name__, now))
        crashes = operation.crashes + 1
        if crashes >= MAX_CRASHES:
            return self._dead_letter(token, value, operation, crashes)
        changed = change_item(
            item, {"operation_id": operation.operation_id or f"token-{token.decode()}", "crashes": crashes}
        )
        return Move(token, value, "next" if crashes == 1 else "later", b"%b\n%b" % (queue, changed))

    def _dead_letter(self, token: bytes, value: bytes, operation: Operation, crashes: int) -> Move:
        queue, _, item = value.partition(b"\n")
        now_ms = self._now_ms()
        reason = f"its worker died {crashes} times while it was in flight"
        letter = encode_letter(item, queue, reason, _POISON, now_ms / 1000, crashes=crashes)
        if operation.phase:
            return Move(token, value, "reject", letter)
        record = encode_record(
            b"rejected", operation, queue, operation.attempts,
            (now_ms, int(operation.timestamp * 1000), 0), body=encode_error(reason, _POISON),
        )  # fmt: skip
        follow_up = b""
        if operation.on_failure is not None:
            changes: dict[str, object] = {"phase": PHASE_FAILURE, "error": reason, "error_type": _POISON}
            follow_up = b"%b\n%b" % (queue, change_item(item, changes, drop=("crashes",)))
        return Move(
            token, value, "reject", letter, operation.operation_id, record, self._ttl_ms,
            operation.deduplication_key, follow_up,
        )  # fmt: skip


def _lease_s(entry: bytes) -> float:
    try:
        return max(0.2, int(entry.rpartition(b":")[2]) / 1000)
    except ValueError:
        return 0.2
