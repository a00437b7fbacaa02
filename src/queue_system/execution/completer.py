"""Settles: from a settlement to the server's answer, and what that asks for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from queue_system.broker.aio import AioTransport
from queue_system.broker.commands import Commands
from queue_system.broker.protocol import Command
from queue_system.broker.requests import MAX_ITEMS
from queue_system.broker.sync import SyncTransport
from queue_system.execution.delivery import Delivery
from queue_system.execution.inflight import InFlight
from queue_system.execution.outbox import Batch
from queue_system.execution.prefetch import Prefetch
from queue_system.execution.refusals import Refusals
from queue_system.execution.reporting import Reporter
from queue_system.execution.rests import Rests, full_name
from queue_system.execution.server_clock import ServerClock
from queue_system.execution.settlement import Settlement
from queue_system.execution.slots import NEVER, Slot
from queue_system.model.keys import queue_name
from queue_system.model.states import Code, Verb
from queue_system.model.verdict import Reject

_NOTE_RUNNING_AFTER_S = 0.1
_LOOK_EVERY_S = 0.025
_NOTE_AGAIN_S = 1800.0
_NOTES_PER_KEY = 3
_LOST, _KEPT, _WENT = (ord(code) for code in (Code.LOST, Code.KEPT, Code.WENT))


@dataclass(eq=False, slots=True)
class Completer:
    """Sends settlements in batches, each until it has been answered, and books what the server accepted.

    There is one batch at a time, and it keeps its id.
    """

    commands: Commands
    inflight: InFlight
    prefetch: Prefetch
    reporter: Reporter
    rests: Rests
    clock: ServerClock
    refusals: Refusals
    changed: asyncio.Event
    """Set when there is something to send."""
    dedup_ttl_s: float
    """How long a deduplication key lasts without a note that its operation runs."""
    lose: Callable[[str], None]
    """Called with an incarnation that the server knows no longer."""
    _note_key_s: float = field(init=False)
    """After how many s the note of an operation with a deduplication key is repeated, which lets the key last."""
    _series: str = field(default_factory=lambda: f"{secrets.token_hex(4)}.s", init=False)
    """What the ids of batches begin with; a stranger who writes into our hash does not know it."""
    _batch: Batch | None = field(default=None, init=False)
    """The batch that turns send until it is answered."""

    _look_at: float = field(default=NEVER, init=False)
    """From when on, on the monotonic clock, to look again at what runs: with many slots, that takes a while."""

    def __post_init__(self) -> None:
        self._note_key_s = min(_NOTE_AGAIN_S, self.dedup_ttl_s / _NOTES_PER_KEY)

    @property
    def unsettled(self) -> int:
        """How many settlements the server has not answered."""
        batch = self._batch  # read once: another thread may ask
        return len(self.inflight.outbox) + (0 if batch is None else len(batch.settlements))

    def put(self, settlement: Settlement) -> None:
        """Take a settlement for the next turn; that of a lost incarnation is dropped."""
        inflight = self.inflight
        if settlement.delivery.incarnation == inflight.incarnation:
            inflight.outbox.put(settlement)
        self.changed.set()

    def note_long_runs(self, slots: Iterable[Slot], now: float) -> None:
        """Let the records of what has been running for a while say so; again in time for its deduplication key."""
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        for slot in slots:
            ran = now - slot.started
            if slot.delivery is not None and ran > _NOTE_RUNNING_AFTER_S:
                self.prefetch.observe_running(ran)
                keyed = slot.delivery.operation.deduplication_key
                if now - slot.noted > (self._note_key_s if keyed else _NOTE_AGAIN_S):
                    slot.noted = now
                    now_ms = self.clock.now_ms()
                    self.note_running(slot.delivery, now_ms - int(ran * 1000), now_ms)

    def note_running(self, delivery: Delivery, started_ms: int, now_ms: int) -> None:
        """Put the note that an operation runs into the next turn."""
        if not delivery.operation.phase:
            self.put(self.inflight.settler.running(delivery, started_ms, now_ms))

    def pause_s(self, running: int) -> float | None:
        """Return in how many s `note_long_runs` is due again, for the given number of running operations."""
        return _NOTE_RUNNING_AFTER_S if running else None

    def choose(self) -> Batch | None:
        """Return the batch that this turn sends: the last one if it has no answer yet."""
        if self._batch is None:
            self._batch = self.inflight.outbox.take(self.refusals.share)
            if self._batch is not None:
                self.prefetch.observe_runs(self._batch.durations())
        return self._batch

    def command(self, batch: Batch) -> Command[bytes]:
        """Return what sends a batch."""
        id_ = f"{self._series}{batch.serial}"
        return self.commands.settle(self.inflight.incarnation, id_, batch.packed, batch.count)

    def answered(self, batch: Batch, codes: bytes, incarnation: str) -> None:
        """Note the answer to a batch of an incarnation."""
        if incarnation != self.inflight.incarnation:
            return
        self._batch = None
        self.refusals.passed()
        if codes == b"lost" or len(codes) != len(batch.settlements):  # the latter, if a stranger wrote the answer
            self.lose(incarnation)
        else:
            self.judged(batch, codes, self.clock.now_ms())

    def judged(self, batch: Batch, codes: bytes, now_ms: int) -> None:
        """Note a code for each settlement of a batch; they are booked when the arrivals are taken in."""
        self.inflight.arrivals.add(partial(self._book, batch, codes, now_ms))

    async def reconsider(self, transport: AioTransport) -> bool:
        """Note whether a batch that fails again and again was applied; if it was not, send less of it at once.

        Return whether the server has answered.
        """
        batch = self._batch
        if batch is None:
            return False
        incarnation = self.inflight.incarnation
        codes = await self.refusals.ask(transport, self.command(Batch(batch.serial, b"", 0, [])))
        if codes is None or self._batch is not batch:
            return False
        if codes:
            self.answered(batch, codes, incarnation)
        else:
            self._batch = None
            self.inflight.outbox.requeue(self.refusals.split(batch, self.clock.now_ms()))
        return True

    def settle_blocking(self, transport: SyncTransport) -> None:
        """Settle what is left. Raises ServerError; called again, it goes on with what was not sent yet."""
        while batch := self._batch or self.inflight.outbox.take(MAX_ITEMS):
            transport.run(self.command(batch), retries=0)
            self._batch = None

    def renew(self) -> None:
        """Note that the incarnation was reclaimed."""
        self._batch = None

    def _book(self, batch: Batch, codes: bytes, now_ms: int) -> None:
        """Count what the server accepted; a callback comes back as a delivery."""
        inflight = self.inflight
        done = []
        running = Verb.RUNNING
        for settlement, code in zip(batch.settlements, codes, strict=True):
            if settlement.verb is running:
                continue
            token = settlement.delivery.token
            inflight.held.pop(token, None)
            inflight.releasing.discard(token)
            if code == _LOST:
                if settlement.verb is not Verb.RELEASE:  # what was to be handed back is elsewhere already
                    self.reporter.lease_lost(1)
                continue
            if settlement.declined is not None and self._was_kept(settlement, settlement.declined, code):
                continue
            done.append(settlement)
            if settlement.follow_up:
                inflight.accept(token, settlement.follow_up, now_ms)
        self.reporter.settled(done)
        if _WENT in codes:
            self.reporter.dead_letters_dropped(codes.count(_WENT))

    def _was_kept(self, settlement: Settlement, declined: Reject, code: int) -> bool:
        """Return whether an operation waits on, because the system errors are full; log what became of it."""
        delivery = settlement.delivery
        operation = settlement.delivery.operation
        queue = queue_name(delivery.queue)
        if code == _KEPT:
            self.rests.refused(queue, delivery.operation_id, full_name(operation), declined.error)
            return True
        self.rests.accepted(queue)
        self.reporter.judged(delivery.operation_id, operation.processor, declined, timed_out=False)
        return False
