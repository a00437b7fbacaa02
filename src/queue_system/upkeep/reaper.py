"""Takes over what silent incarnations held. Never trusts a clock but its own monotonic one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from queue_system.broker.commands import Move
from queue_system.broker.contact import Contact
from queue_system.broker.replies import DEAD
from queue_system.config import QueueConfig
from queue_system.errors import QueueSystemError, UndecodableItemError, cut_text
from queue_system.model.keys import split_queue
from queue_system.model.operation import PHASE_FAILURE, Operation, change_item, check_size, decode_item
from queue_system.model.record import encode_error, encode_letter, encode_record, keeping
from queue_system.model.sealing import signed_value
from queue_system.upkeep.duty import Duty

MAX_CRASHES = 4
_LOOKS_PER_LEASE = 7
_WATCHERS = 8
_OWN_SILENCE = 0.6
_WATCH_FIRST = 1.5
_WATCH_LEASES = 10
_CHUNK = 100
_POISON = "WorkerDied"


@dataclass(slots=True)
class Observation:
    """An incarnation's entry and since when it has not changed."""

    entry: bytes
    since: float


class Reaper(Duty):
    """Watches all incarnations; reclaims one whose counter stood still for its whole lease, with unbroken contact."""

    name = "reaper"

    def __init__(
        self,
        config: QueueConfig,
        own: Callable[[], str],
        now_ms: Callable[[], int],
        contact: Contact | None = None,
    ) -> None:
        super().__init__(config.log, config.lease_seconds / _LOOKS_PER_LEASE, config.upkeep_outage, contact)
        self._config = config
        self._own = own
        self._now_ms = now_ms
        self._sealing = config.sealing
        self._seen: dict[str, Observation] = {}
        self._own_seen = Observation(b"", 0.0)
        self._last_look = 0.0
        self._watch_s = _WATCH_FIRST * config.lease_seconds
        self._decided_until = time.monotonic() + self._watch_s

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
        if not self._beats(entries.get(self._own(), b""), now, answered):
            self._seen.clear()  # reads are answered, but writes are not: everybody seems silent
        for incarnation, entry in entries.items():
            if incarnation.startswith(DEAD):
                self._take_over(incarnation.removeprefix(DEAD))
            elif incarnation != self._own() and self._is_silent(incarnation, entry, now, answered):
                if self._config.transport.run(self._config.commands.mark(incarnation, entry)):
                    self.log.warning("a worker died: its operations run again", incarnation=incarnation)
                    self._take_over(incarnation)
                self._seen.pop(incarnation, None)
        for gone in self._seen.keys() - entries.keys():
            del self._seen[gone]
        if any(answered - seen.since > 2 * self._watch_s / 3 for seen in self._seen.values()):
            return self.interval_s  # somebody may be dead
        return self.next_wait_s(answered, len(self._seen) + 1)

    def next_wait_s(self, now: float, incarnations: int) -> float:
        """Return when to look again: soon, or after some leases, since about eight of many workers are enough to watch.

        Otherwise what a fleet reads would grow with the square of its workers. Nobody rests before having watched long
        enough to see who is dead.
        """
        if now < self._decided_until:
            return self.interval_s
        watch_s = _WATCH_LEASES * self._config.lease_seconds
        self._decided_until = now + watch_s + self._watch_s
        if random.random() * incarnations <= _WATCHERS:
            return self.interval_s
        self._seen.clear()
        return watch_s

    def failed(self, error: QueueSystemError) -> float:
        """Forget what was seen: silence that nobody watched proves nothing."""
        self._seen.clear()
        return super().failed(error)

    def _is_silent(self, incarnation: str, entry: bytes, asked: float, answered: float) -> bool:
        """Tell whether an entry has stood still from an answer to a later question for a whole lease."""
        seen = self._seen.get(incarnation)
        if seen is None or seen.entry != entry:
            self._seen[incarnation] = Observation(entry, answered)
            return False
        return asked - seen.since >= _lease_s(entry)

    def _beats(self, entry: bytes, asked: float, answered: float) -> bool:
        """Tell whether this worker's own beats reach the server."""
        if self._own_seen.entry != entry:
            self._own_seen = Observation(entry, answered)
        return asked - self._own_seen.since < _OWN_SILENCE * self._config.lease_seconds

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
        now, most = self._now_ms() / 1000, self._config.max_item_bytes
        try:
            if split_queue(queue) is None:
                raise UndecodableItemError("it came from no queue of ours")
            if self._sealing is not None:
                check_size(item, most)
                item = self._sealing.verify(queue, item)
            operation = decode_item(item, most)
        except UndecodableItemError as error:
            letter = encode_letter(item, queue, cut_text(str(error)), type(error).__name__, now, max_item_bytes=most)
            return Move(token, value, "reject", letter)
        crashes = operation.crashes + 1
        if crashes >= MAX_CRASHES:
            return self._dead_letter(token, value, item, operation)
        changed = change_item(
            item, {"operation_id": operation.operation_id or f"token-{token.decode()}", "crashes": crashes}
        )
        return Move(token, value, "next" if crashes == 1 else "later", signed_value(self._sealing, queue, changed))

    def _dead_letter(self, token: bytes, value: bytes, item: bytes, operation: Operation) -> Move:
        queue, crashes = value.partition(b"\n")[0], operation.crashes + 1
        now_ms = self._now_ms()
        reason = f"its worker died {crashes} times while it was in flight"
        letter = encode_letter(item, queue, reason, _POISON, now_ms / 1000, crashes=crashes)
        if self._sealing is not None:
            letter = self._sealing.sign_letter(queue, letter)
        if operation.phase:
            return Move(token, value, "reject", letter)
        own_ttl = operation.result_ttl
        keeps, ttl_ms = keeping(self._config.result_ttl if own_ttl is None else own_ttl)
        times_ms, body = (now_ms, int(operation.timestamp * 1000), 0), encode_error(reason, _POISON) if keeps else b""
        record = encode_record(b"rejected", operation, queue, operation.attempts, times_ms, body=body)
        follow_up = b""
        if operation.on_failure is not None:
            changes: dict[str, object] = {"phase": PHASE_FAILURE, "error": reason, "error_type": _POISON}
            follow_up = signed_value(self._sealing, queue, change_item(item, changes, drop=("crashes",)))
        return Move(
            token, value, "reject", letter, operation.operation_id, record, ttl_ms,
            operation.deduplication_key, follow_up,
        )  # fmt: skip


def _lease_s(entry: bytes) -> float:
    try:
        return max(0.2, int(entry.rpartition(b":")[2]) / 1000)
    except (ValueError, OverflowError):
        return 0.2
