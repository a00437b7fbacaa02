"""The two halves of a worker, what runs operations and what fetches and settles them, and their orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from queue_system.broker.presence import encode_presence
from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import QueueConfig
from queue_system.errors import QueueSystemError
from queue_system.execution.delivery import Delivery
from queue_system.execution.executor import Executor, limit_exceeded
from queue_system.execution.fetcher import Fetcher
from queue_system.execution.forks import guard, release
from queue_system.execution.inflight import InFlight
from queue_system.execution.loop_guard import guard_loop, release_loop
from queue_system.execution.quarantine import PROCESS
from queue_system.execution.reporting import Reporter
from queue_system.execution.rests import Rests
from queue_system.execution.settlement import Settler
from queue_system.execution.slots import CURRENT, NEVER, Slot, WorkerTask, stand_in, start_apart
from queue_system.metrics import StructuredLogger
from queue_system.model.keys import queue_name
from queue_system.model.verdict import Raised
from queue_system.resilience import in_daemon_thread

_STOP_WITHIN_S = 2.0
_END_WITHIN_S = 0.25
_TIDY_UP_S = 1.0
_LEAVE_WITHIN_S = 3.75
_SIGN_OFF_WITHIN_S = 3.0
_STEP_S = 0.005
_LEAVE_TRIES = 3
_REPLACE_AFTER_S = 0.1
_SHOWN = 10

Work: TypeAlias = Callable[[int], Coroutine[Any, Any, None]]
Handle: TypeAlias = Callable[["Engine", Slot, Delivery], Coroutine[Any, Any, None]]
Settle: TypeAlias = Callable[["Engine", Delivery, Raised, float, int], object]


@dataclass(eq=False, slots=True, weakref_slot=True)
class Engine:
    """An executor and its fetcher."""

    executor: Executor
    fetcher: Fetcher
    log: StructuredLogger
    loop: asyncio.AbstractEventLoop
    names: Sequence[str]
    """The queues served; none: all."""
    ended: asyncio.Event
    """Set when no slot is waited for any longer."""
    cancelled_at: float = NEVER
    """When, on the monotonic clock, what still ran was cancelled because the worker stops."""
    dies: bool = False
    """Whether the process is this worker's own, so that an end that nobody asked for is its death."""
    stand_ins: list[WorkerTask[None]] = field(default_factory=list)

    @classmethod
    def open(
        cls, config: QueueConfig, slots: int, settler: Settler, reporter: Reporter, names: Sequence[str], rests: Rests
    ) -> Engine:
        """Put the halves together, for the running event loop."""
        loop = asyncio.get_running_loop()
        executor = Executor(slots, loop, lambda: engine.thread_abandoned())  # noqa: PLW0108 - it comes later
        fetcher = Fetcher(config, executor, InFlight(settler, reporter, config.sealing, rests), reporter, names)
        engine = cls(executor, fetcher, config.log, loop, names, asyncio.Event())
        guard(engine)
        guard_loop(loop)
        return engine

    def presence(self) -> bytes:
        """Return what others may know of this worker. Callable from any thread."""
        return encode_presence(self.names, len(self.executor.slots), self.executor.abandoned)

    def thread_abandoned(self) -> None:
        """Learn that a thread of the current operation was given up, and tell of it."""
        slot = CURRENT.get()
        fields = {} if slot is None or slot.delivery is None else {
            "operation_id": slot.delivery.operation_id, "processor": slot.delivery.operation.processor
        }  # fmt: skip
        self.log.warning("a thread is abandoned, and runs on", **fields, abandoned=self.executor.abandoned)

    def hold_back(self, delivery: Delivery) -> None:
        """Learn that a sync operation was not begun, since too many threads were abandoned: its queue rests."""
        self.fetcher.inflight.rests.hold(queue_name(delivery.queue), self.executor.threads.refusal)

    def start_slots(self, work: Work, settle: Settle) -> None:
        """Start a task for each slot that does `work`; `settle` settles what is given up."""
        self.executor.give_up = partial(self._give_up, work, settle)
        for index in range(len(self.executor.slots)):
            self.start_slot(work, index)
            self.stand_ins.append(stand_in(self.ended, f"queue-system-slot-{index}"))

    def start_slot(self, work: Work, index: int) -> None:
        """Start a slot's task anew, with the current context."""
        slot = self.executor.slots[index]
        task = start_apart(slot, work(index), f"queue-system-slot-{index}")
        task.add_done_callback(partial(self._slot_ended, work, index, slot))

    def _slot_ended(self, work: Work, index: int, slot: Slot, task: asyncio.Task[None]) -> None:
        """Replace a slot whose task has ended though nobody asked for it."""
        error = None if task.cancelled() else task.exception()
        if slot.task is task and not slot.closing:
            self.log.error("a slot ended by itself and is replaced", slot=index, exc_info=error)
            self.loop.call_later(_REPLACE_AFTER_S, self.start_slot, work, index)

    def _give_up(self, work: Work, settle: Settle, slot: Slot) -> None:
        """Settle an operation that goes on past its limit in spite of its cancellations; another slot follows."""
        executor = self.executor
        delivery = slot.delivery
        index = executor.slots.index(slot)
        executor.abandon(slot)
        executor.slots[index] = executor.new_slot()
        self.log.warning(
            "an operation ignores its cancellation and is abandoned",
            operation_id=delivery.operation_id, processor=delivery.operation.processor, abandoned=executor.abandoned,
        )  # fmt: skip
        settle(self, delivery, limit_exceeded(slot), slot.started, self.fetcher.server_ms(slot.started))
        self.start_slot(work, index)

    async def handle_one(self, worker_id: int, adopt: bytes, begin: Callable[[], None], handle: Handle) -> bool:
        """Claim a single item, or adopt it, and handle it in the only slot; False when there is none."""
        fetcher = self.fetcher
        inflight = self.fetcher.inflight
        await fetcher.register()
        begin()
        delivery = await fetcher.claim_one(adopt)
        found = bool(inflight.held)
        while inflight.held or inflight.outbox:
            if delivery is not None:
                self.log.debug("handling one item", worker_id=worker_id, operation_id=delivery.operation_id)
                await self._handle_apart(delivery, handle)
            await fetcher.turn()
            delivery = inflight.buffer.take()
            if delivery is None and inflight.suspected:
                await asyncio.sleep(_STEP_S)  # until it may start, or has waited for long enough
        return found

    async def _handle_apart(self, delivery: Delivery, handle: Handle) -> None:
        """Handle a delivery in a task of its own, so that a cancellation of the caller is told from others."""
        (slot,) = self.executor.slots
        slot.delivery = delivery
        task = start_apart(slot, handle(self, slot, delivery), "queue-system-item")
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await self.end_tasks(None)
            raise
        slot.delivery = None
        task.result()
        if slot.exit is not None:
            raise slot.exit

    async def wind_down(self, grace_s: float) -> None:
        """Claim no more; let running operations end for `grace_s`, then cancel them; settle all that can be settled."""
        await self.fetcher.stop_claiming()
        await self._until(lambda: not self.executor.running, grace_s)
        self.cancelled_at = SYSTEM_CLOCK.monotonic()
        for slot in self.executor.slots:
            self.executor.stop_slot(slot)
        await self._until(lambda: not (self.executor.running or self.fetcher.unsettled), _STOP_WITHIN_S)

    async def end_tasks(self, fetching: asyncio.Task[None] | None) -> None:
        """End the tasks of both halves; what does not end is abandoned."""
        tasks = self._cancel_slots()
        if fetching is not None:
            fetching.cancel()
            tasks.append(fetching)
        if tasks:
            await asyncio.wait(tasks, timeout=_END_WITHIN_S)
        self._abandon()
        self.ended.set()

    async def close(self) -> None:
        """Drop the connections and sign off."""
        self._release()
        await self.fetcher.close()
        with contextlib.suppress(TimeoutError):
            left_s = self.cancelled_at + _LEAVE_WITHIN_S - SYSTEM_CLOCK.monotonic()
            async with asyncio.timeout(left_s if left_s > 0 else _SIGN_OFF_WITHIN_S):
                await in_daemon_thread(self._sign_off)

    async def discard(self) -> None:
        """Drop the connections and everything held, without a word to the server."""
        self._release()
        await self.fetcher.close()
        PROCESS.remove(self.fetcher.seat)

    async def leave(self) -> None:
        """Do what `end_tasks` and `close` do at the end of the event loop, which waits for this as for any task."""
        running = [slot.task for slot in self.executor.slots if slot.delivery is not None and slot.task is not None]
        if self.dies and running:
            self._die()
            return
        self._cancel_slots()
        with contextlib.suppress(asyncio.CancelledError):  # there is no more time
            if running:
                await asyncio.wait(running, timeout=_TIDY_UP_S)
        self._abandon()
        self._release()
        self.fetcher.drop_connections()
        _within(_SIGN_OFF_WITHIN_S, self._sign_off)

    def _die(self) -> None:
        """Hand back what waits, and leave what runs to those who take over from dead workers: it may do it again.

        So its deaths are counted, and the one to blame is found.
        """
        ids = [slot.delivery.operation_id for slot in self.executor.slots if slot.delivery is not None]
        self.log.error(
            "something that runs here has ended this worker's event loop or cancelled its tasks: the process ends,"
            " and what runs comes back as from a worker that died",
            operations=len(ids), operation_ids=", ".join(ids[:_SHOWN]),
        )  # fmt: skip
        self.fetcher.dispatcher.closed = True
        self.fetcher.inflight.release_waiting()
        self._release()
        self.fetcher.drop_connections()
        _within(_SIGN_OFF_WITHIN_S, self._settle_last)

    def close_blocking(self) -> None:
        """Do what `close` does for an event loop that was closed."""
        self._release()
        self.fetcher.drop_connections()
        self._sign_off()

    def leave_blocked(self) -> None:
        """Hand everything back from another thread, because the event loop is blocked; this process ends then."""
        self._log_abandoned()
        self._sign_off()

    def _release(self) -> None:
        if not self.loop.is_closed():
            self.ended.set()
        release(self)
        release_loop(self.loop)
        self.executor.close()

    def _cancel_slots(self) -> list[asyncio.Task[None]]:
        """Let every slot end, and cancel what runs."""
        tasks = []
        for slot in self.executor.slots:
            slot.closing = True
            if (task := slot.task) is not None:
                tasks.append(task)
                if slot.delivery is None:
                    task.cancel()
                else:
                    self.executor.stop_slot(slot)
        return tasks

    def _abandon(self) -> None:
        self._log_abandoned()
        for slot in self.executor.slots:
            if slot.delivery is not None:
                self.executor.abandon(slot)

    def _log_abandoned(self) -> None:
        stuck: list[Slot] = [slot for slot in self.executor.slots if slot.delivery is not None]
        if stuck:
            ids = ", ".join(slot.delivery.operation_id for slot in stuck[:_SHOWN])
            self.log.warning(
                "operations ignore their cancellation: they are abandoned and run again elsewhere",
                operations=len(stuck), operation_ids=ids,
            )  # fmt: skip

    def cut_off(self) -> None:
        """In a forked child: hold and start nothing any more, and end it when the event loop comes round."""
        self.fetcher.drop_connections()
        self.fetcher.inflight.renew()  # whatever this process may still send counts for nothing
        self.fetcher.dispatcher.closed = True
        self.executor.cut_off()

    def _sign_off(self) -> None:
        """Settle and release whatever is still booked on this incarnation, and leave."""
        for _ in range(_LEAVE_TRIES):
            with contextlib.suppress(QueueSystemError):
                if self.fetcher.leave_blocking():
                    break
        PROCESS.remove(self.fetcher.seat)

    def _settle_last(self) -> None:
        with contextlib.suppress(QueueSystemError):
            self.fetcher.leave_blocking(dying=True)

    async def _until(self, holds: Callable[[], bool], longest_s: float) -> None:
        deadline = SYSTEM_CLOCK.monotonic() + longest_s
        while not holds() and SYSTEM_CLOCK.monotonic() < deadline:
            self.fetcher.release_waiting()
            await asyncio.sleep(_STEP_S)


def _within(longest_s: float, work: Callable[[], None]) -> None:
    """Do what blocks in a thread, and wait for it for so long."""
    thread = threading.Thread(target=work, name="queue-system-sign-off", daemon=True)
    thread.start()
    thread.join(longest_s)
