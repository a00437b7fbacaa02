"""A worker's engine: in each turn it settles what finished and claims what fits, in one round trip. Judges nothing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeAlias

from queue_system.broker.access import AccessBackoff
from queue_system.broker.aio import AioTransport
from queue_system.broker.presence import encode_presence
from queue_system.broker.replies import Pulse
from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError, QueueSystemError
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
from queue_system.execution.runners.forks import guard, release
from queue_system.execution.runners.loop_guard import guard_loop, release_loop
from queue_system.execution.server_clock import ServerClock
from queue_system.execution.settlement import Settler
from queue_system.execution.slot_tasks import SlotTasks, Work, shown_ids
from queue_system.execution.slots import CURRENT, NEVER
from queue_system.model.formats import place_of
from queue_system.model.keys import queue_name
from queue_system.model.verdict import Raised
from queue_system.resilience import in_daemon_thread

_FRESH = 0.7
_GATHER_S = 0.002
_STOP_WITHIN_S = 2.0
_END_WITHIN_S = 0.25
_TIDY_UP_S = 1.0
_LEAVE_WITHIN_S = 3.75
_SIGN_OFF_WITHIN_S = 3.0
_STEP_S = 0.005
_LEAVE_TRIES = 3

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
        self.inflight = InFlight(settler, reporter, config.sealing)
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
        self._lease_ms = int(config.lease_seconds * 1000)
        self._prefetch = Prefetch(slots)
        self._transport = AioTransport(shard.endpoint)
        self._reconnect = Reconnect(config.log, shard.outage, reporter.flush_counts, self.access, config.lease_seconds)
        self._registered = False
        """Whether the server has booked this incarnation, so that beats count and claims may be sent."""
        self._notes: list[RestNote] = []
        """Which queues are left alone: sent with each turn until one was answered."""
        self._cancelled_at = NEVER
        """When, on the monotonic clock, what still ran was cancelled because the worker stops."""
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
        guard(self)
        guard_loop(self.loop)

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
        """Whether anything has yet to be handed back, settled or answered. Who is not registered awaits nothing."""
        claiming = self._registered and self.claimer.awaits_answer
        return bool(self.inflight.buffer or self.completer.unsettled or claiming or self.inflight.arrivals)

    def presence(self) -> bytes:
        """Return what others may know of this worker. Callable from any thread."""
        return encode_presence(self._names, len(self.executor.slots), self.executor.abandoned)

    def hold_back(self, delivery: Delivery) -> None:
        """Learn that a sync operation was not begun, since too many threads were abandoned: its queue rests."""
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
                if await self._reconnect.is_overwritten(
                    error, self._transport, self._commands.tokens(self.incarnation)
                ):
                    self.lose(self.incarnation)
                await self._reconnect.wait(error)
                if not isinstance(error, AccessDeniedError) and await self.completer.reconsider(self._transport):
                    self._reconnect.over()
                self.dispatcher.changed.set()
            await self.dispatcher.wait(self._longest_pause())
            held = self.inflight
            if not held.arrivals and self._prefetch.may_gather(len(held.buffer), len(held.outbox)):
                await asyncio.sleep(_GATHER_S)

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
            commands.append(self._commands.beat("register", incarnation, self._lease_ms))
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
        self.dispatcher.changed.set()

    async def register(self) -> None:
        """Register, and let turns claim nothing; from here on beats count. Raises ServerError."""
        self.claimer.claim_singly()
        sent = SYSTEM_CLOCK.monotonic()
        command = self._commands.beat("register", self.incarnation, self._lease_ms)
        (pulse,) = await self._transport.run(command)
        self._register(pulse, self.incarnation, sent)

    async def claim_one(self, adopt: bytes = b"") -> Delivery | None:
        """Claim a single delivery, outside the stream of turns, or book the one given. Raises ServerError."""
        (claimed,) = await self._transport.run(await self.claimer.claim_one(adopt))
        self.claimer.answered(claimed, self.incarnation)
        self._take_in()
        self.claimer.isolate()
        return self.inflight.buffer.take()

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

    async def wind_down(self, grace_s: float) -> None:
        """Claim no more; let running operations end for `grace_s`, then cancel them; settle all that can be settled."""
        await self.claimer.stop()
        await self._until(lambda: not self.executor.running, grace_s)
        self._cancelled_at = SYSTEM_CLOCK.monotonic()
        self.tasks.stop_running()
        await self._until(lambda: not (self.executor.running or self.unsettled), _STOP_WITHIN_S)

    async def end_tasks(self, turns: asyncio.Task[None] | None) -> None:
        """End the tasks of the slots, and that of the turns; what does not end is abandoned."""
        tasks = self.tasks.cancel()
        if turns is not None:
            turns.cancel()
            tasks.append(turns)
        if tasks:
            await asyncio.wait(tasks, timeout=_END_WITHIN_S)
        self.tasks.abandon()
        self.tasks.ended.set()

    async def close(self) -> None:
        """Drop the connections and sign off."""
        await self._close_connections()
        with contextlib.suppress(TimeoutError):
            left_s = self._cancelled_at + _LEAVE_WITHIN_S - SYSTEM_CLOCK.monotonic()
            async with asyncio.timeout(left_s if left_s > 0 else _SIGN_OFF_WITHIN_S):
                await in_daemon_thread(self._sign_off)

    async def discard(self) -> None:
        """Drop the connections and everything held, without a word to the server."""
        await self._close_connections()
        self.claimer.leave_process()

    async def leave(self, *, dies: bool = False) -> None:
        """Do what `end_tasks` and `close` do at the end of the event loop, which waits for this as for any task.

        `dies`: what runs has ended the event loop of a process that is the worker's own, which counts as its death.
        """
        running = [slot.task for slot in self.tasks.running() if slot.task is not None]
        if dies and running:
            self._die()
            return
        self.tasks.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # there is no more time
            if running:
                await asyncio.wait(running, timeout=_TIDY_UP_S)
        self.tasks.abandon()
        self._release()
        self.drop_connections()
        _within(_SIGN_OFF_WITHIN_S, self._sign_off)

    def close_blocking(self) -> None:
        """Do what `close` does for an event loop that was closed."""
        self._release()
        self.drop_connections()
        self._sign_off()

    def leave_blocked(self) -> None:
        """Hand everything back from another thread, because the event loop is blocked; this process ends then."""
        self.tasks.log_abandoned()
        self._sign_off()

    def cut_off(self) -> None:
        """In a forked child: hold and start nothing any more, and end it when the event loop comes round."""
        self.drop_connections()
        self.inflight.renew()  # whatever this process may still send counts for nothing
        self.dispatcher.closed = True
        self.executor.cut_off()

    def drop_connections(self) -> None:
        """Drop the connections."""
        self._transport.close()
        self.claimer.long_poll.drop_connection()

    def _longest_pause(self) -> float | None:
        """Return within how many s the next turn has to follow, whatever happens; None: when something happens."""
        pause_s = self.claimer.pause_s() or self.completer.pause_s(self.executor.running)
        return pause_s or (LOOK_EVERY_S if self._rests.queues else None)

    def _take_in(self) -> None:
        try:
            if self.inflight.arrivals.take_in():
                self.claimer.isolate()
                self.dispatcher.wake()
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
        """Tell that a thread of the current operation was given up."""
        slot = CURRENT.get()
        fields = {} if slot is None or slot.delivery is None else {
            "operation_id": slot.delivery.operation_id, "processor": slot.delivery.operation.processor
        }  # fmt: skip
        self.log.warning("a thread is abandoned and runs on", **fields, abandoned=self.executor.abandoned)

    def _die(self) -> None:
        """Hand back what waits, and leave what runs to those who take over from dead workers: it may harm them, too.

        So its deaths are counted, and the one to blame is found.
        """
        running = self.tasks.running()
        self.log.error(
            "something that runs here has ended this worker's event loop or cancelled its tasks: the process ends,"
            " and what runs comes back as from a worker that died",
            operations=len(running), operation_ids=shown_ids(running),
        )  # fmt: skip
        self.dispatcher.closed = True
        self.inflight.release_waiting()
        self._release()
        self.drop_connections()
        _within(_SIGN_OFF_WITHIN_S, self._settle_last)

    async def _close_connections(self) -> None:
        self._release()
        await self.claimer.long_poll.end()
        self.drop_connections()

    def _release(self) -> None:
        if not self.loop.is_closed():
            self.tasks.ended.set()
        release(self)
        release_loop(self.loop)
        self.executor.close()

    def _sign_off(self) -> None:
        """Settle and release whatever is still booked on this incarnation, and leave."""
        for _ in range(_LEAVE_TRIES):
            with contextlib.suppress(QueueSystemError):
                if self._leave():
                    break
        self.claimer.leave_process()

    def _leave(self) -> bool:
        """Settle what can be, release the rest and sign off. Tell whether all of that is done. Raises ServerError."""
        run = partial(self.shard.transport.run, retries=0)
        self.completer.settle_blocking(self.shard.transport)
        pulse = run(self._commands.beat("leave", self.incarnation, self._lease_ms))
        if not pulse.alive or pulse.tokens == 0:
            return True
        self.inflight.held.clear()
        self.inflight.release_unknown(self.incarnation, sorted(run(self._commands.tokens(self.incarnation))))
        return False

    def _settle_last(self) -> None:
        with contextlib.suppress(QueueSystemError):
            self.completer.settle_blocking(self.shard.transport)

    async def _until(self, holds: Callable[[], bool], longest_s: float) -> None:
        deadline = SYSTEM_CLOCK.monotonic() + longest_s
        while not holds() and SYSTEM_CLOCK.monotonic() < deadline:
            self.claimer.release_waiting()
            self.dispatcher.changed.set()
            await asyncio.sleep(_STEP_S)


def _within(longest_s: float, work: Callable[[], None]) -> None:
    """Do what blocks in a thread, and wait for it for so long."""
    thread = threading.Thread(target=work, name="queue-system-sign-off", daemon=True)
    thread.start()
    thread.join(longest_s)
