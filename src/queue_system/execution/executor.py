"""Runs processors and callbacks under their time limits, in long-lived slots. Never talks to Redis."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import os
import threading
import time
from functools import partial
from typing import Any, Final, Literal

from queue_system.execution.forks import blind, leave_if_forked
from queue_system.execution.processes import ProcessPool
from queue_system.execution.threads import ThreadPool
from queue_system.model.placement import process_reference
from queue_system.model.registry import Processor, Reference
from queue_system.model.verdict import Interrupted, Outcome, Raised, Succeeded
from queue_system.tracebacks import trace

_LONGEST_WAIT_S = 3600.0
_START_WITHIN_S = 60.0

Place = Literal["loop", "thread"] | Reference
"""Where a processor runs; the reference is how a child process finds it."""


NEVER: Final = -math.inf
"""Before all times of the monotonic clock, which may begin with the host."""


class Slot:
    """One of the places at which operations run; it owns the task that awaits them."""

    __slots__ = ("context", "deadline", "delivery", "expired", "noted", "started", "stopped", "task")

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self.task: asyncio.Task[None] | None = None
        self.delivery: Any = None
        self.started = 0.0
        self.deadline = float("inf")
        self.expired = False
        self.stopped = False
        self.noted = NEVER


class Executor:
    """Runs one processor per slot and ends it at its deadline. One timer serves all slots."""

    def __init__(self, slots: int, loop: asyncio.AbstractEventLoop) -> None:
        self.slots = [Slot() for _ in range(slots)]
        self.threads = ThreadPool(slots, loop)
        self.processes = ProcessPool(loop)
        self._loop = loop
        self._home = os.getpid()
        self._thread = threading.get_ident()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._places: dict[Processor, Place] = {}

    @property
    def running(self) -> int:
        """How many slots have a delivery."""
        return sum(slot.delivery is not None for slot in self.slots)

    async def run(
        self, slot: Slot, processor: Processor, argument: Any, limit_s: float, limit_name: str = "work_timeout"
    ) -> Outcome:
        """Run a processor until `limit_s` after the slot's start, and tell how that ended.

        `limit_name` says whose limit that is.
        """
        slot.deadline = deadline = slot.started + limit_s
        if deadline < self._timer_at:
            self._arm(deadline)
        outcome: Outcome
        cancelled: BaseException | None = None
        try:
            place = self._place_of(processor)
            if place == "loop":
                outcome = Succeeded(await processor(argument))
            elif place == "thread":
                result = await self.threads.run(processor, argument)
                outcome = Succeeded(await result if inspect.isawaitable(result) else result)
            else:
                slot.deadline += _START_WITHIN_S
                outcome = await self.processes.run(place, argument, partial(self._begin, slot, limit_s))
        except asyncio.CancelledError as error:
            cancelled = error
            outcome = Raised("the processor was cancelled from within", "CancelledError", trace=trace(error))
            if slot.task is not None and slot.task.cancelling():
                outcome = Interrupted()
        except BaseException as error:
            leave_if_forked(self._home, error)
            if isinstance(error, KeyboardInterrupt | GeneratorExit) and self._place_of(processor) == "loop":
                raise  # meant for this process or this task, not for the operation
            outcome = raised(error)
        finally:
            slot.deadline = float("inf")
        if slot.expired or slot.stopped:
            late = TimeoutError(f"the attempt timed out after {limit_s:g} s: {limit_name}")
            late.__cause__, cancelled = cancelled, None  # a name for it here would keep it alive
            return self._after_cancel(slot, outcome, late)
        return outcome

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
        self.processes.close()

    def cut_off(self) -> None:
        """In a forked child: end it where a processor or the event loop comes round."""
        for slot in self.slots:
            slot.stopped = True
        self.processes.cut_off()
        if self._loop.is_closed():
            return
        blind(self._loop)
        if threading.get_ident() == self._thread:
            self._loop.call_soon(leave_if_forked, self._home)

    def _place_of(self, processor: Processor) -> Place:
        try:
            return self._places[processor]
        except TypeError:  # it has no hash
            return _find_place(processor)
        except KeyError:
            place = self._places[processor] = _find_place(processor)
            return place

    def _begin(self, slot: Slot, limit_s: float) -> None:
        """Let a limit count from now on: neither a child's start nor its imports are the operation's."""
        slot.deadline = time.monotonic() + limit_s
        if slot.deadline < self._timer_at:
            self._arm(slot.deadline)

    def _after_cancel(self, slot: Slot, outcome: Outcome, late: TimeoutError) -> Outcome:
        leave_if_forked(self._home)
        while slot.task is not None and slot.task.cancelling():
            slot.task.uncancel()
        expired, stopped, slot.expired, slot.stopped = slot.expired, slot.stopped, False, False
        if expired and not (stopped and isinstance(outcome, Interrupted)):
            if isinstance(outcome, Raised) and outcome.trace is not None and late.__cause__ is None:
                late.__cause__ = outcome.trace.error
            return raised(late, timed_out=True)
        return outcome

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        wait = min(max(0.0, deadline - time.monotonic()), _LONGEST_WAIT_S)
        self._timer = self._loop.call_later(wait, self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        now = time.monotonic()
        nearest = float("inf")
        for slot in self.slots:
            if slot.deadline <= now and slot.task is not None:
                slot.expired = True
                slot.deadline = now + 1.0  # a processor that swallows the cancellation gets another
                slot.task.cancel()
            nearest = min(nearest, slot.deadline)
        if nearest < float("inf"):
            self._arm(nearest)


def _find_place(processor: Processor) -> Place:
    call = getattr(processor, "__call__", None)  # noqa: B004 - an object's own coroutine method
    if inspect.iscoroutinefunction(processor) or inspect.iscoroutinefunction(call):
        return "loop"
    return process_reference(processor) or "thread"


def raised(error: BaseException, *, timed_out: bool = False) -> Raised:
    """Return the outcome of an execution that raised an error: its text without passwords, and where it came from."""
    found = trace(error)
    return Raised(found.message, found.kind, timed_out, found)
