"""A worker's engine: in each turn it settles what finished and claims what fits, in one round trip. Judges nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from queue_system.broker.access import AccessBackoff
from queue_system.broker.admission import ask_admission
from queue_system.broker.aio import AioTransport
from queue_system.broker.presence import encode_presence
from queue_system.broker.replies import Pulse
from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError
from queue_system.execution.claimer import LOOK_EVERY_S, Claimer
from queue_system.execution.completer import Completer
from queue_system.execution.delivery import Delivery
from queue_system.execution.dispatcher import Dispatcher
from queue_system.execution.executor import Executor
from queue_system.execution.inflight import InFlight
from queue_system.execution.long_poll import LongPoll
from queue_system.execution.prefetch import Prefetch
from queue_system.execution.reconnect import Reconnect
from queue_system.execution.refusals import Refusals
from queue_system.execution.reporting import Reporter
from queue_system.execution.rests import RestNote, Rests
from queue_system.execution.server_clock import ServerClock
from queue_system.execution.settlement import Settler
from queue_system.execution.slot_tasks import SlotTasks, Work
from queue_system.execution.slots import CURRENT
from queue_system.model.formats import place_of
from queue_system.model.keys import queue_name
from queue_system.model.verdict import Raised

_FRESH = 0.7

Settle: TypeAlias = Callable[["Engine", Delivery, Raised, float, int], object]


class Engine:
    """One life of a worker in one event loop: its turns, its lease, and its orderly end.

    An operation passes through its parts in this order: `claimer`, `inflight`, `dispatcher`, a slot of `executor`,
    `completer`.
    """

    def __init__(
        self, config: QueueConfig, slots: int, settler: Settler, reporter: Reporter, names: Sequence[str], rests: Rests
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.executor = Executor(slots, self.loop, self._thread_abandoned)
        self.tasks = SlotTasks(self.executor, config.log, self.loop)
        self.inflight = InFlight(settler, reporter, config.signer)
        self.dispatcher = Dispatcher(self.inflight.buffer)
        self.clock = ServerClock()
        self.access = AccessBackoff()
        self.log = config.log
        self.shard = shard = config.shard
        """The shard that it serves."""
        self._config = config
        self._commands = shard.commands
        self._reporter = reporter
        self._rests = rests
        self._names = list(names)
        self.lease_ms = int(config.lease_seconds * 1000)
        self.inflight.outbox.enough = slots
        self.inflight.outbox.filled = self.dispatcher.stir
        self._prefetch = Prefetch(slots)
        self._transport = AioTransport(shard.route)
        self._reconnect = Reconnect(
            config.log,
            shard.outage,
            reporter.flush_counts,
            self.access,
            config.lease_seconds,
            lambda: shard.route.longest_wait_s,
        )
        self._registered = False
        """Whether the server has booked this incarnation, so that beats count and claims may be sent."""
        self._notes: list[RestNote] = []
        """Which queues are left alone: sent with each turn until one was answered."""
        self.claimer = Claimer(
            commands=shard.commands,
            log=config.log,
            names=self._names,
            executor=self.executor,
            inflight=self.inflight,
            dispatcher=self.dispatcher,
            prefetch=self._prefetch,
            rests=rests,
            clock=self.clock,
            long_poll=LongPoll(shard, config.log, reporter.flush_counts, self.dispatcher.changed.set),
            lose=self.lose,
            take_in=self._take_in,
        )
        self.completer = Completer(
            commands=shard.commands,
            inflight=self.inflight,
            prefetch=self._prefetch,
            reporter=reporter,
            rests=rests,
            clock=self.clock,
            refusals=Refusals(config, settler),
            changed=self.dispatcher.changed,
            dedup_ttl_s=config.dedup_ttl,
            lose=self.lose,
        )

    @property
    def incarnation(self) -> str:
        """This life of the worker; another one begins when the lease was lost."""
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
        return self.claimer.newest

    @property
    def unsettled(self) -> bool:
        """Whether anything has yet to be handed back, settled or answered. An unregistered worker awaits nothing."""
        claiming = self._registered and self.claimer.awaits_answer
        return bool(self.inflight.buffer or self.completer.unsettled or claiming or self.inflight.arrivals)

    def presence(self) -> bytes:
        """Return what others may know of this worker. Callable from any thread."""
        return encode_presence(self._names, len(self.executor.slots), self.executor.abandoned)

    def hold_back(self, delivery: Delivery) -> None:
        """Note that a sync operation was not begun, since too many threads were abandoned: its queue rests."""
        self._rests.hold(queue_name(delivery.queue), self.executor.threads.refusal)

    def start_slots(self, work: Work, settle: Settle) -> None:
        """Start a task for each slot that does `work`; `settle` settles what is given up."""
        self.tasks.start_all(
            work, lambda delivery, outcome, began: settle(self, delivery, outcome, began, self.clock.at(began))
        )

    async def run(self) -> None:
        """Take turns until cancelled. No error of the server ends it."""
        while True:
            try:
                await self.turn()
                if self._reconnect.over():
                    self._reporter.flush_counts()
            except Exception as error:  # noqa: BLE001 - whatever it is: who takes no turns holds his lease for ever
                self._reporter.outage()
                self._commands.write_many = ""  # the next server may be an older one
                if await self._reconnect.is_overwritten(
                    error, self._transport, self._commands.tokens(self.incarnation)
                ):
                    self.lose(self.incarnation)
                await self._reconnect.wait(error)
                if not isinstance(error, AccessDeniedError) and await self.completer.reconsider(self._transport):
                    self._reconnect.over()
                self.dispatcher.changed.set()
            await self.dispatcher.wait(self._longest_pause())
            if gather_s := self._gather_s():
                await self.dispatcher.gather(gather_s)

    async def turn(self) -> None:
        """Settle what finished and claim what fits. Sent again after an error, it is the same turn."""
        now = SYSTEM_CLOCK.monotonic()
        self.claimer.tend(now)
        self.completer.note_long_runs(self.executor.slots, now)
        batch = self.completer.choose()
        claim = self.claimer.choose(registered=self._registered)
        incarnation = self.incarnation
        registering = not self._registered
        commands: list[Any] = []
        if registering:
            commands.append(self._commands.beat("register", incarnation, self.lease_ms))
        if batch is not None:
            commands.append(self.completer.command(batch))
        if claim is not None:
            commands.append(self.claimer.command(claim))
        if self._notes or self._rests.notes:
            self._notes = self._notes or self._rests.take_notes()
            commands.append(self._commands.rest(place_of(incarnation), self._notes))
        sent = SYSTEM_CLOCK.monotonic()
        request = self._transport.send(commands) if commands else None
        self._take_in()  # what the last turn brought, while the server works on this one
        if request is None:
            return
        replies = iter(await self._transport.receive(request))
        took_s = SYSTEM_CLOCK.monotonic() - sent
        if took_s > self._config.connection_timeout and self.shard.outage.ready():
            told = "a turn took long: bytes pass slowly, or the event loop is blocked"
            self.log.warning(told, seconds=took_s)
        if registering:
            self._register(next(replies), incarnation, sent)
        if batch is not None:
            self.completer.answered(batch, next(replies), incarnation)
        if claim is not None:
            self.claimer.answered(next(replies), incarnation)
        self._notes = []
        self._go_on()

    async def ask_admission(self) -> None:
        """Ask whether the server can hold queues. Raises ServerError."""
        await ask_admission(self._transport, self.shard.admission)

    async def register(self) -> None:
        """Register, and let turns claim nothing; from here on beats count. Raises ServerError."""
        self.claimer.claim_singly()
        sent = SYSTEM_CLOCK.monotonic()
        command = self._commands.beat("register", self.incarnation, self.lease_ms)
        (pulse,) = await self._transport.run(command)
        self._register(pulse, self.incarnation, sent)

    async def claim_one(self, adopt: bytes = b"") -> Delivery | None:
        """Claim a single delivery outside the turns, or book the one given. Raises ServerError."""
        (claimed,) = await self._transport.run(await self.claimer.claim_one(adopt))
        self.claimer.answered(claimed, self.incarnation)
        self._take_in()
        self.claimer.isolate()
        return self.inflight.buffer.take()

    def confirm(self, sent: float) -> None:
        """Note that a beat sent at that monotonic time was answered."""
        was_open = self.dispatcher.is_open
        self.dispatcher.last_beat = sent
        self.dispatcher.valid_until = sent + _FRESH * self._config.lease_seconds
        if not was_open:
            self.dispatcher.wake()

    def lose(self, incarnation: str) -> None:
        """Note that an incarnation was reclaimed: drop all it held and begin a new one."""
        if incarnation != self.incarnation:
            return
        lost = len(self.inflight.held)
        self._reporter.lease_lost(lost)
        self.log.warning(
            "lease lost: other workers run these operations again", incarnation=incarnation, operations=lost
        )
        self.inflight.renew()
        self.claimer.renew()
        self.completer.renew()
        self._registered = False
        self.dispatcher.valid_until = 0.0
        self.tasks.stop_running()
        self.dispatcher.changed.set()

    def release_unknown(self, incarnation: str, tokens: Sequence[int]) -> None:
        """Hand back tokens that the server books on this incarnation and nobody here knows."""
        self.inflight.release_unknown(incarnation, tokens)
        self.dispatcher.changed.set()

    def drop_connections(self) -> None:
        """Drop the connections."""
        self._transport.close()
        self.claimer.long_poll.drop_connection()

    def _longest_pause(self) -> float | None:
        """Return within how many s the next turn has to follow, whatever happens; None: when something happens."""
        pause_s = self.claimer.pause_s() or self.completer.pause_s(self.executor.running)
        return pause_s or (LOOK_EVERY_S if self._rests.queues else None)

    @property
    def _is_due(self) -> bool:
        """Whether the next turn may have something to send."""
        return len(self.inflight.outbox) > 0 or self.claimer.is_due

    def _go_on(self) -> None:
        """Take in what a turn has brought: at once, or where the next one follows at once, while the server has it."""
        if self._is_due and not self._gather_s():
            self.dispatcher.changed.set()
        else:
            self._take_in()

    def _gather_s(self) -> float:
        held = self.inflight
        return self._prefetch.gather_s(self.executor.free, held.startable, len(held.outbox))

    def _take_in(self) -> None:
        try:
            if self.inflight.arrivals.take_in():
                self.claimer.isolate()
                self.dispatcher.feed()
                if self._is_due:
                    self.dispatcher.changed.set()
        except Exception:
            self._transport.close()  # replies still to come would be read as those of the next turn
            raise

    def _register(self, pulse: Pulse, incarnation: str, sent: float) -> None:
        if not pulse.alive:
            self.lose(incarnation)
        elif incarnation == self.incarnation:
            self._registered = True
            self.confirm(sent)

    def _thread_abandoned(self) -> None:
        """Report that a thread of the current operation was given up."""
        slot = CURRENT.get()
        fields = {} if slot is None or slot.delivery is None else {
            "operation_id": slot.delivery.operation_id, "processor": slot.delivery.operation.processor
        }  # fmt: skip
        self.log.warning("a thread is abandoned and runs on", **fields, abandoned=self.executor.abandoned)
