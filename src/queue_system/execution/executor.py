"""Runs processors and callbacks under their time limits, in long-lived slots. Never talks to Redis."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import traceback
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, Final, Literal

from queue_system.clock import SYSTEM_CLOCK
from queue_system.execution.runners.forks import leave_if_forked, silence
from queue_system.execution.runners.processes import ProcessPool
from queue_system.execution.runners.threads import ThreadPool
from queue_system.execution.slots import Slot, forget_cancellations, forget_task
from queue_system.interrupts import sent_by_a_signal
from queue_system.model.isolation import process_reference
from queue_system.model.lazy import PLAIN, finished
from queue_system.model.registry import Processor, Reference
from queue_system.model.verdict import Interrupted, Outcome, Raised, Succeeded
from queue_system.tracebacks import trace

CANCEL_AGAIN_S: Final = 5.0
"""How long a processor may clean up at its limit before it is cancelled once more."""
GIVE_UP_AFTER_S: Final = 15.0
"""How long after its limit a processor that ignores its cancellations is abandoned."""

_HELPERS: Final = 32
_MOST_PLACES: Final = 256
_LONGEST_WAIT_S = 3600.0
_START_WITHIN_S = 60.0

Place = Literal["loop", "thread"] | Reference
"""Where a processor runs; the reference is how a child process finds it."""

Around = Callable[[Callable[[Any], Awaitable[Outcome]], Any], Awaitable[Outcome]]
"""Surrounds the call of a processor: it gets what calls it, and the argument."""


class Executor:
    """Runs one processor per slot and ends it at its deadline. One timer serves all slots."""

    def __init__(
        self, slots: int, loop: asyncio.AbstractEventLoop, thread_abandoned: Callable[[], None] = lambda: None
    ) -> None:
        self.threads = ThreadPool(slots, loop, thread_abandoned)
        self.helpers = ThreadPool(max(slots, _HELPERS), loop, thread_abandoned)
        """The threads of what async processors give to the default executor."""
        self.processes = ProcessPool(loop)
        self.slots = [self.new_slot() for _ in range(slots)]
        self.give_up: Callable[[Slot], None] | None = None
        """Finds a successor for a slot whose processor cannot be ended."""
        self.zombies: set[asyncio.Task[None]] = set()
        """The tasks of abandoned slots that have not ended."""
        self._loop = loop
        self._home = os.getpid()
        self._thread = threading.get_ident()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._find_place = lru_cache(maxsize=_MOST_PLACES)(_find_place)

    def new_slot(self) -> Slot:
        """Return a slot without a task."""
        return Slot(self.helpers.submit)

    def abandon(self, slot: Slot) -> None:
        """Wait for a slot's task no more; it is counted until it ends."""
        slot.abandoned = slot.closing = True
        slot.deadline = float("inf")
        if (task := slot.task) is not None and not task.done():
            forget_task(task)
            self.zombies.add(task)
            task.add_done_callback(self.zombies.discard)

    @property
    def abandoned(self) -> int:
        """How many threads and tasks were given up and still run."""
        return self.threads.abandoned + self.helpers.abandoned + len(self.zombies)

    @property
    def running(self) -> int:
        """How many slots have a delivery."""
        return len(self.slots) - [slot.delivery for slot in self.slots].count(None)

    @property
    def free(self) -> int:
        """How many slots have none."""
        return len(self.slots) - self.running

    @property
    def last_start(self) -> float:
        """When, on the monotonic clock, the last operation was started."""
        return max([slot.started for slot in self.slots])

    def refuses(self, processor: Processor) -> bool:
        """Return whether too many threads were abandoned for a processor that would need another."""
        return self.threads.abandoned >= self.threads.most_abandoned and self._place_of(processor) == "thread"

    async def run(
        self,
        slot: Slot,
        processor: Processor,
        argument: Any,
        limit_s: float,
        limit_name: str = "work_timeout",
        around: Around | None = None,
    ) -> Outcome:
        """Run a processor, and what surrounds it, until `limit_s` after the slot's start; return how that ended.

        `limit_name` says whose limit that is.
        """
        slot.deed = ""
        slot.limit_s = limit_s
        slot.limit_name = limit_name
        slot.deadline = deadline = slot.started + limit_s
        if deadline < self._timer_at:
            self._arm(deadline)
        outcome: Outcome
        cancelled: BaseException | None = None
        try:
            place = self._place_of(processor)
            if around is not None:
                outcome = await self._surround(slot, place, processor, argument, around)
            elif place == "loop":
                result = await processor(argument)
                outcome = Succeeded(result if type(result) in PLAIN else finished(result))
            else:
                outcome = await self._call(slot, place, processor, argument)
        except asyncio.CancelledError as error:
            cancelled = error
            text = "the processor was cancelled from within"
            outcome = Raised(text, "CancelledError", trace=trace(error), exception=error)
            if slot.stopped:
                outcome = Interrupted()
        except BaseException as error:
            leave_if_forked(self._home, error)
            kind = type(error)  # its `__class__` may say or do anything
            if issubclass(kind, GeneratorExit) and asyncio.current_task(self._loop) is not slot.task:
                raise  # the task itself is closed
            if issubclass(kind, KeyboardInterrupt) and is_meant_for_the_process(error):
                slot.exit = error  # meant for this process: it is raised again when the attempt is settled
            outcome = raised(error)
        finally:
            slot.deadline = float("inf")
        if slot.expired or slot.stopped:
            late = _late(slot)
            late.__cause__ = cancelled
            cancelled = None  # a name for it here would keep it alive
            return self._after_cancel(slot, outcome, late)
        return outcome

    async def _surround(self, slot: Slot, place: Place, processor: Processor, argument: Any, around: Around) -> Outcome:
        if place == "thread" and self.refuses(processor):
            return Interrupted()
        return await around(partial(self._call, slot, place, processor), argument)

    async def _call(self, slot: Slot, place: Place, processor: Processor, argument: Any) -> Outcome:
        """Call a processor where it runs."""
        if place == "loop":
            return Succeeded(finished(await processor(argument)))
        if place == "thread":
            if self.refuses(processor):
                return Interrupted()
            result = await self.threads.run(processor, argument)
            return Succeeded(finished(await result if inspect.isawaitable(result) else result))
        left_s = slot.deadline - SYSTEM_CLOCK.monotonic()
        slot.deadline += _START_WITHIN_S
        return await self.processes.run(place, argument, partial(self._begin, slot, slot.started, left_s))

    def stop_slot(self, slot: Slot) -> None:
        """Cancel what runs in a slot because the worker stops."""
        if slot.delivery is not None and slot.task is not None:
            slot.stopped = True
            slot.task.cancel()

    @property
    def is_stranded(self) -> bool:
        """Whether its event loop was closed."""
        return self._loop.is_closed()

    def close(self) -> None:
        """Drop the timer, let the threads end, and end the child processes."""
        if self._timer is not None:
            self._timer.cancel()
        self.threads.close()
        self.helpers.close()
        self.processes.close()

    def cut_off(self) -> None:
        """In a forked child: end it where a processor or the event loop comes round."""
        for slot in self.slots:
            slot.stopped = True
        self.processes.cut_off()
        if self._loop.is_closed():
            return
        silence(self._loop)
        if threading.get_ident() == self._thread:
            self._loop.call_soon(leave_if_forked, self._home)

    def _place_of(self, processor: Processor) -> Place:
        try:
            return self._find_place(processor)
        except TypeError:  # it has no hash
            return _find_place(processor)

    def _begin(self, slot: Slot, started: float, left_s: float) -> None:
        """Let what is left of a limit count from now on: a child's start and its imports are not the operation's."""
        if slot.started != started or slot.expired:
            return  # another operation is here, or time is up
        slot.deadline = SYSTEM_CLOCK.monotonic() + left_s
        if slot.deadline < self._timer_at:
            self._arm(slot.deadline)

    def _after_cancel(self, slot: Slot, outcome: Outcome, late: TimeoutError) -> Outcome:
        leave_if_forked(self._home)
        forget_cancellations(slot.task)
        expired = slot.expired
        stopped = slot.stopped
        slot.expired = False
        slot.stopped = False
        if expired and not (stopped and isinstance(outcome, Interrupted)):
            if isinstance(outcome, Raised) and outcome.trace is not None and late.__cause__ is None:
                late.__cause__ = outcome.trace.error
            return raised(late, timed_out=True)
        if slot.deed and isinstance(outcome, Interrupted):  # it would do the same to every worker
            text = f"the processor was cancelled after {slot.deed}"
            return Raised(text, "CancelledError", exception=asyncio.CancelledError(text))
        return outcome

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        wait = min(max(0.0, deadline - SYSTEM_CLOCK.monotonic()), _LONGEST_WAIT_S)
        self._timer = self._loop.call_later(wait, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        now = SYSTEM_CLOCK.monotonic()
        nearest = float("inf")
        for slot in self.slots:
            if slot.deadline <= now and slot.task is not None:
                self._cancel_late(slot, now)
            nearest = min(nearest, slot.deadline)
        if nearest < float("inf"):
            self._arm(nearest)

    def _cancel_late(self, slot: Slot, now: float) -> None:
        """Cancel what is past its limit; what swallows the cancellation gets another, and is given up at last."""
        if not slot.expired:
            slot.expired = True
            slot.expired_at = now
        elif self.give_up is not None and now - slot.expired_at >= GIVE_UP_AFTER_S:
            self.give_up(slot)
            return
        slot.deadline = now + CANCEL_AGAIN_S
        if slot.task is not None:
            slot.task.cancel()


def limit_exceeded(slot: Slot) -> Raised:
    """Return the outcome of what a slot runs past its limit."""
    return raised(_late(slot), timed_out=True)


def _late(slot: Slot) -> TimeoutError:
    return TimeoutError(f"the attempt timed out after {slot.limit_s:g} s: {slot.limit_name}")


def is_meant_for_the_process(error: BaseException) -> bool:
    """Return whether a signal's handler raised it in this thread, as far as can be known, and not the processor."""
    codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
    if ThreadPool._serve.__code__ in codes:  # noqa: SLF001 - it comes from a thread, and signals do not
        return False
    return sent_by_a_signal(error)


def _find_place(processor: Processor) -> Place:
    call = getattr(processor, "__call__", None)  # noqa: B004 - an object's own coroutine method
    if inspect.iscoroutinefunction(processor) or inspect.iscoroutinefunction(call):
        return "loop"
    return process_reference(processor) or "thread"


def raised(error: BaseException, *, timed_out: bool = False) -> Raised:
    """Return the outcome of an execution that raised an error: its text without passwords, and where it came from."""
    found = trace(error)
    return Raised(found.message, found.kind, timed_out, found, exception=error)
