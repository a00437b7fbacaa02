"""The worker's turns: settle what finished and claim what fits, in one round trip. Never executes an operation."""

from __future__ import annotations

import asyncio
import itertools
import math
import secrets
from collections.abc import Collection, Sequence
from typing import Any

from queue_system.broker.access import AccessBackoff
from queue_system.broker.aio import AioTransport
from queue_system.broker.commands import MAX_ITEMS
from queue_system.broker.protocol import Command
from queue_system.broker.replies import Claimed, Pulse
from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError
from queue_system.execution.delivery import Delivery
from queue_system.execution.dispatcher import Dispatcher
from queue_system.execution.executor import Executor
from queue_system.execution.inflight import InFlight
from queue_system.execution.long_poll import LongPoll
from queue_system.execution.prefetch import LARGEST_TURN, RELEASE_AFTER_S, Prefetch, block_seconds
from queue_system.execution.quarantine import PROCESS
from queue_system.execution.reconnect import Reconnect
from queue_system.execution.refusals import Refusals
from queue_system.execution.reporting import Reporter
from queue_system.execution.rests import RestNote
from queue_system.execution.settlement import Batch, Settlement
from queue_system.execution.suspects import Suspects
from queue_system.model.formats import place_of

_NOTE_RUNNING_AFTER_S = 0.1
_NOTE_AGAIN_S = 1800.0
_NOTES_PER_KEY = 3
_FRESH = 0.7
_GATHER_S = 0.002
_LOOK_EVERY_S = 0.2

Claim = tuple[str, int]  # its id, and how much it asks for; sent again, it is the same claim


class Fetcher:
    """Claims for the slots and settles for them."""

    def __init__(
        self, config: QueueConfig, executor: Executor, inflight: InFlight, reporter: Reporter, names: Sequence[str]
    ) -> None:
        self.inflight = inflight
        self.dispatcher = Dispatcher(inflight.buffer)
        self._config = config
        self._commands = config.commands
        self._executor = executor
        self._reporter = reporter
        self._names = list(names)
        self._note_key_s = min(_NOTE_AGAIN_S, config.dedup_ttl / _NOTES_PER_KEY)
        self._lease_ms = int(config.lease_seconds * 1000)
        self._transport = AioTransport(config.endpoint)
        self._prefetch = Prefetch(len(executor.slots))
        self._claims = True
        self._registered = False
        self._drained = False
        self._next_due_ms = -1
        self._expected = 0
        self._serial = itertools.count(1)
        self._series = f"{secrets.token_hex(4)}."  # whoever writes into our hash does not know it
        self._server_offset_ms = (SYSTEM_CLOCK.time() - SYSTEM_CLOCK.monotonic()) * 1000
        self._batch: Batch | None = None
        self._refusals = Refusals(config, inflight.settler)
        self._claim: Claim | None = None
        self._look_at = 0.0
        self._notes: list[RestNote] = []
        self._long_poll = LongPoll(config, reporter.flush_counts, self.dispatcher.changed.set)
        self.seat = PROCESS.seat(asyncio.get_running_loop(), lambda: bool(inflight.held), self.dispatcher.changed.set)
        self._suspects = Suspects(inflight, self.seat, self._is_claiming, self._end_long_poll)
        self.access = AccessBackoff()
        self._reconnect = Reconnect(config.log, config.outage, reporter.flush_counts, self.access, config.lease_seconds)

    @property
    def incarnation(self) -> str:
        """This life of the worker."""
        return self.inflight.incarnation

    @property
    def registered(self) -> str | None:
        """This life of the worker, once the server knows it."""
        return self.inflight.incarnation if self._registered else None

    @property
    def held(self) -> Collection[int]:
        """The tokens known here."""
        return self.inflight.held

    @property
    def newest(self) -> float:
        """The newest token that no claim under way may yet bring."""
        return self.inflight.newest if self._is_claiming() or self.inflight.arrived else math.inf

    def server_ms(self, monotonic: float) -> int:
        """Return the server's time at a moment of the monotonic clock, as far as this worker knows it."""
        return int(self._server_offset_ms + monotonic * 1000)

    def now_ms(self) -> int:
        """Return the server's time now."""
        return self.server_ms(SYSTEM_CLOCK.monotonic())

    def put(self, settlement: Settlement) -> None:
        """Take a settlement for the next turn."""
        self.inflight.put(settlement)
        self.dispatcher.changed.set()

    def confirm(self, sent: float) -> None:
        """Learn that a beat sent at that monotonic time was answered."""
        was_open = self.dispatcher.is_open
        self.dispatcher.last_beat = sent
        self.dispatcher.valid_until = sent + _FRESH * self._config.lease_seconds
        if not was_open:
            self.dispatcher.wake()

    def lose(self, incarnation: str) -> None:
        """Learn that an incarnation was reclaimed: drop all it held and begin a new one."""
        if incarnation != self.incarnation:
            return
        lost = len(self.inflight.held)
        self._reporter.lease_lost(lost)
        self._config.log.warning(
            "lease lost: other workers run these operations again", incarnation=incarnation, operations=lost
        )
        self.inflight.renew()
        self._suspects.drop()
        self._registered = False
        self._drained = False
        self.dispatcher.valid_until = 0.0
        self._batch = self._claim = None  # the long poll goes on: dropped, it could take the wake-up along
        for slot in self._executor.slots:
            self._executor.stop_slot(slot)
        self.dispatcher.changed.set()

    def release_waiting(self) -> None:
        """Hand back what no slot has taken; not while a claim may bring more, so that the old order stays."""
        if self._claim is None and not self.inflight.arrived:
            self.inflight.release_waiting()
        self.dispatcher.changed.set()

    def release_unknown(self, incarnation: str, tokens: Sequence[int]) -> None:
        """Hand back tokens that the server books on this incarnation and nobody here knows."""
        self.inflight.release_unknown(incarnation, tokens)
        self.dispatcher.changed.set()

    async def run(self) -> None:
        """Take turns until cancelled. No error of the server ends it."""
        while True:
            try:
                await self.turn()
                if self._reconnect.over():
                    self._reporter.flush_counts()
            except Exception as error:  # noqa: BLE001 - whatever it is: who fetches no more holds his lease for ever
                self._reporter.outage()
                if await self._reconnect.is_overwritten(
                    error, self._transport, self._commands.tokens(self.incarnation)
                ):
                    self.lose(self.incarnation)
                await self._reconnect.wait(error)
                if self._batch is not None and not isinstance(error, AccessDeniedError):
                    await self._reconsider(self._batch)
                self.dispatcher.changed.set()
            await self.dispatcher.wait(self._longest_pause())
            held = self.inflight
            if not held.arrived and self._prefetch.may_gather(len(held.buffer), len(held.outbox)):
                await asyncio.sleep(_GATHER_S)

    async def _reconsider(self, batch: Batch) -> None:
        """Learn whether a batch that fails again and again was applied; if it was not, send less of it at once."""
        codes = await self._refusals.ask(self._transport, self._settling(Batch(batch.serial, b"", 0, [])))
        if codes is None or self._batch is not batch:
            return
        if codes:
            self._settled(batch, codes, self.incarnation)
        else:
            self._batch = None
            self.inflight.outbox.requeue(self._refusals.split(batch, self.now_ms()))
        self._reconnect.over()

    async def turn(self) -> None:
        """Settle what finished and claim what fits. Sent again after an error, it is the same turn."""
        self._tend()
        self._choose()
        incarnation = self.incarnation
        batch = self._batch
        claim = self._claim
        registering = not self._registered
        commands: list[Any] = []
        if registering:
            commands.append(self._commands.beat("register", incarnation, self._lease_ms))
        if batch is not None:
            commands.append(self._settling(batch))
        if claim is not None:
            commands.append(self._claim_command(claim))
        if self._notes or self.inflight.rests.notes:
            self._notes = self._notes or self.inflight.rests.take_notes()
            commands.append(self._commands.rest(place_of(self.incarnation), self._notes))
        sent = SYSTEM_CLOCK.monotonic()
        request = self._transport.send(commands) if commands else None
        self._take_in()  # what the last turn brought, while the server works on this one
        if request is None:
            return
        replies = iter(await self._transport.receive(request))
        took_s = SYSTEM_CLOCK.monotonic() - sent
        if took_s > self._config.connection_timeout and self._config.outage.ready():
            told = "a turn took long: bytes pass slowly, or the event loop is blocked"
            self._config.log.warning(told, seconds=took_s)
        if registering:
            self._register(next(replies), incarnation, sent)
        if batch is not None:
            self._settled(batch, next(replies), incarnation)
        if claim is not None:
            self._claimed(next(replies), incarnation)
        self._notes = []
        self.dispatcher.changed.set()

    async def register(self) -> None:
        """Register, and claim nothing yet; from here on beats count. Raises ServerError."""
        self._claims = False
        sent = SYSTEM_CLOCK.monotonic()
        command = self._commands.beat("register", self.incarnation, self._lease_ms)
        (pulse,) = await self._transport.run(command)
        self._register(pulse, self.incarnation, sent)

    async def claim_one(self, adopt: bytes = b"") -> Delivery | None:
        """Claim a single delivery, outside the stream of turns. Raises ServerError."""
        if adopt:
            self.seat.busy = True  # what was taken from its list must be booked at once
        else:
            await self.seat.wait()
        self._claim = claim = self._new_claim(1)
        command = self._commands.claim(self.incarnation, *claim, self._names, adopt=adopt)
        (claimed,) = await self._transport.run(command)
        self._claimed(claimed, self.incarnation)
        self._take_in()
        self._isolate()
        return self.inflight.buffer.take()

    async def stop_claiming(self) -> None:
        """Claim and start no more, and end the claim that waits for work."""
        self._claims = False
        self.dispatcher.closed = True
        await self._long_poll.end()

    @property
    def unsettled(self) -> bool:
        """Whether anything has yet to be handed back, settled or answered. Who is not registered awaits nothing."""
        claiming = self._claim if self._registered else None
        return bool(self.inflight.buffer or self.inflight.outbox or self._batch or claiming or self.inflight.arrived)

    def leave_blocking(self, *, dying: bool = False) -> bool:
        """Settle what can be; unless `dying`, release the rest and sign off, too. Tell whether all of that is done."""
        run = self._config.transport.run
        while batch := self._batch or self.inflight.outbox.take(MAX_ITEMS):
            run(self._settling(batch), retries=0)
            self._batch = None
        pulse = None if dying else run(self._commands.beat("leave", self.incarnation, self._lease_ms), retries=0)
        if pulse is None or not pulse.alive or pulse.tokens == 0:
            return True
        self.inflight.held.clear()
        self.inflight.release_unknown(self.incarnation, sorted(run(self._commands.tokens(self.incarnation), retries=0)))
        return False

    async def close(self) -> None:
        """End the claim that waits for work, and drop the connections."""
        await self._long_poll.end()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Drop the connections."""
        self._transport.close()
        self._long_poll.drop_connection()

    def _choose(self) -> None:
        if self._batch is None:
            self._batch = self.inflight.outbox.take(self._refusals.share)
            if self._batch is not None:
                self._prefetch.observe_runs(self._batch.durations())
        if self._claim is None and (wanted := self._wanted()):
            if not (self._drained and self._registered) or 0 < self._look_at <= SYSTEM_CLOCK.monotonic():
                self._claim = self._new_claim(wanted)
            elif not (self._long_poll.waits or self._look_at):
                self._claim_when_woken(self._new_claim(wanted))

    def _wanted(self) -> int:
        unsure = not (
            self._registered and self.dispatcher.is_open
        )  # who claims must beat while the answer is under way
        behind = len(self.inflight.outbox) >= LARGEST_TURN  # what is claimed now could not be settled in time
        served = self.inflight.rests.served(self._names)
        if not self._claims or unsure or behind or self.seat.yields or served is None:
            return 0
        waiting = len(self.inflight.buffer) + self.inflight.arriving
        return self._suspects.room(self._prefetch.room(len(self._executor.slots) - self._executor.running, waiting))

    def _new_claim(self, wanted: int) -> Claim:
        return f"{self._series}c{next(self._serial)}", wanted

    def _settling(self, batch: Batch) -> Command[bytes]:
        return self._commands.settle(self.incarnation, f"{self._series}s{batch.serial}", batch.packed, batch.count)

    def _claim_command(self, claim: Claim) -> Command[Claimed | None]:
        names = self.inflight.rests.served(self._names) or self._names
        return self._commands.claim(self.incarnation, *claim, names, expected=self._expected)

    def _tend(self) -> None:
        """Hand back what waits too long or is of a queue at rest, let a suspect start, and note what runs long."""
        now = SYSTEM_CLOCK.monotonic()
        if self.inflight.buffer and (resting := self.inflight.rests.resting()):
            self.inflight.release_queues(resting)
        oldest = self.inflight.buffer.oldest_claimed()
        if oldest is not None:
            self._prefetch.observe_wait(now - oldest)
            coming = self._claim is not None or self.inflight.arriving  # it would overtake what goes back now
            if now - oldest > RELEASE_AFTER_S and not coming:
                free = len(self._executor.slots) - self._executor.running
                self.inflight.release_waiting(keep=free if self.dispatcher.is_open else 0)
        if self._isolate():
            self.dispatcher.wake()
        for slot in self._executor.slots:
            ran = now - slot.started
            if slot.delivery is not None and ran > _NOTE_RUNNING_AFTER_S:
                self._prefetch.observe_running(ran)
                keyed = slot.delivery.operation.deduplication_key
                if now - slot.noted > (self._note_key_s if keyed else _NOTE_AGAIN_S):
                    slot.noted = now
                    self.inflight.note_running(slot.delivery, self.now_ms() - int(ran * 1000), self.now_ms())

    def _isolate(self) -> bool:
        """Let a suspect start if it is its turn; tell whether that is so."""
        if not self._suspects.concern:
            return False
        more = self._claims and not self._drained
        return self._suspects.tend(running=self._executor.running > 0, is_open=self.dispatcher.is_open, more=more)

    def _is_claiming(self) -> bool:
        return self._claim is not None or self._long_poll.waits

    def _end_long_poll(self) -> None:
        """Let the main connection ask what the claim that waits for work has brought; it brings nothing more."""
        if (claim_id := self._long_poll.cancel()) is not None and self._claim is None:
            self._claim = claim_id, 0

    def _register(self, pulse: Pulse, incarnation: str, sent: float) -> None:
        if not pulse.alive:
            self.lose(incarnation)
        elif incarnation == self.incarnation:
            self._registered = True
            self.confirm(sent)

    def _settled(self, batch: Batch, codes: bytes, incarnation: str) -> None:
        if incarnation != self.incarnation:
            return
        self._batch = None
        self._refusals.passed()
        if codes == b"lost" or len(codes) != len(batch.settlements):  # the latter, if a stranger wrote the answer
            self.lose(incarnation)
            return
        self.inflight.answered(batch, codes, self.now_ms())

    def _claimed(self, claimed: Claimed | None, incarnation: str) -> None:
        if incarnation != self.incarnation:
            self._drained = False  # one that waited was woken under a name that no longer counts
            return
        self._claim = None
        if claimed is None:
            self.lose(incarnation)
            return
        self._server_offset_ms = claimed.now_ms - SYSTEM_CLOCK.monotonic() * 1000
        self._next_due_ms = claimed.next_due_ms
        self._drained = not claimed.more
        self._look_at = SYSTEM_CLOCK.monotonic() + _LOOK_EVERY_S if claimed.left_behind else 0.0
        if claimed.values:
            self._expected = claimed.largest
        if claimed.more and claimed.values and self.dispatcher.starved:
            self._prefetch.observe_starving()
        self.dispatcher.starved = False
        for key in claimed.wrong_keys:
            self._config.log.error("a list holds a foreign type and is skipped", key=key.decode(errors="replace"))
        self.inflight.claimed(claimed)
        self.dispatcher.note_claim(len(claimed.values), self._executor.last_start)

    def _take_in(self) -> None:
        try:
            if self.inflight.take_in():
                self._isolate()
                self.dispatcher.wake()
        except Exception:
            self._transport.close()  # replies still to come would be read as those of the next turn
            raise

    def _claim_when_woken(self, claim: Claim) -> None:
        incarnation = self.incarnation
        self._long_poll.asked = claim[0]

        def answered(claimed: Claimed | None) -> None:
            self._claimed(claimed, incarnation)
            self._take_in()

        def failed() -> None:
            self._drained = False
            if incarnation == self.incarnation:
                self._claim = claim  # the main connection asks again, under the same id
                self.dispatcher.changed.set()

        block_s = block_seconds(self._next_due_ms, self.now_ms(), self.inflight.left_s())
        names = self.inflight.rests.served(self._names) or self._names
        command = self._claim_command(claim)
        self._long_poll.start(names if self._names else (), command, block_s, answered, failed)

    def _longest_pause(self) -> float | None:
        if self.inflight.buffer or self.inflight.suspected or self.seat.owns:
            return RELEASE_AFTER_S / 2
        if self._executor.running:
            return _NOTE_RUNNING_AFTER_S
        return _LOOK_EVERY_S if self.inflight.rests.queues else None
