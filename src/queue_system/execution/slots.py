"""The places at which operations run, and whose code runs now."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import math
from asyncio.tasks import _unregister_task
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from queue_system.interrupts import sent_by_a_signal

T = TypeVar("T")

NEVER: Final = -math.inf
"""Before all times of the monotonic clock, which may begin with the host."""


class Slot:
    """One of the places at which operations run; it owns the task that awaits them."""

    __slots__ = (
        "abandoned", "closing", "context", "deadline", "deed", "delivery", "exit", "expired", "expired_at",
        "limit_name", "limit_s", "noted", "started", "stopped", "submit", "task",
    )  # fmt: skip

    def __init__(self, submit: Callable[..., Any] | None = None) -> None:
        self.task: asyncio.Task[None] | None = None
        self.submit = submit
        """Runs a function in a thread of the worker."""
        self.context: contextvars.Context | None = None
        """The context of that task."""
        self.delivery: Any = None
        self.started = 0.0
        self.deadline = math.inf
        self.limit_s = math.inf
        self.limit_name = ""
        self.expired = False
        self.expired_at = 0.0
        self.stopped = False
        """Whether the worker has cancelled what runs because it stops."""
        self.noted = NEVER
        self.deed = ""
        """What the operation has done to its worker."""
        self.exit: BaseException | None = None
        """What ends this process as soon as the operation is judged."""
        self.closing = False
        """Whether the task has to end."""
        self.abandoned = False
        """Whether nobody waits any longer for what runs here, since it cannot be ended."""


CURRENT: Final = contextvars.ContextVar[Slot | None]("queue_system_slot", default=None)
"""The slot whose operation runs, also in its threads and in the callbacks and tasks that it creates."""


def blame(deed: str) -> bool:
    """Note what the operation that runs does to its worker; False when no operation is at work here."""
    slot = CURRENT.get()
    if slot is None:
        return False
    slot.deed = deed
    return True


def context_of(slot: Slot | None) -> contextvars.Context:
    """Return a copy of the current context in which that slot's operation runs; None: no operation does."""
    context = contextvars.copy_context()
    context.run(CURRENT.set, slot)
    return context


class WorkerTask(asyncio.Task[T]):
    """A task of the worker itself, which no operation can cancel."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task, unless an operation asks for it."""
        return not blame("it cancelled the tasks of its worker") and super().cancel(msg)


def start_apart(slot: Slot, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Let a task do a slot's work that `asyncio.all_tasks` does not show.

    So neither an operation nor the end of the event loop cancels it or waits for it: its worker does, and knows why.
    `stand_in` is what `asyncio.all_tasks` shows instead.
    """
    slot.context = context_of(slot)
    task = asyncio.Task(work, loop=asyncio.get_running_loop(), name=name, context=slot.context)
    _unregister_task(task)
    slot.task = task
    return task


def stand_in(ended: asyncio.Event, name: str) -> WorkerTask[None]:
    """Start a task that stands for a slot among all tasks until the slots have ended."""

    async def wait() -> None:
        await ended.wait()

    return WorkerTask(wait(), loop=asyncio.get_running_loop(), name=name, context=context_of(None))


def forget_cancellations(task: asyncio.Task[None] | None) -> None:
    """Take back all cancellations of a slot's task: their reason is over."""
    while task is not None and task.cancelling():
        task.uncancel()


def is_the_end(error: BaseException, task: asyncio.Task[None] | None) -> bool:
    """Return whether an error means the task or the process, not what the task does: it is closed, or a signal came."""
    if issubclass(type(error), GeneratorExit):
        running = asyncio._get_running_loop()  # noqa: SLF001 - None where the garbage collector closes the task
        if running is None or asyncio.current_task(running) is not task:
            return True
    return not issubclass(type(error), Exception) and sent_by_a_signal(error)


def forget_task(task: asyncio.Task[Any]) -> None:
    """Let nobody wait for a task that cannot be ended, and keep it for good.

    Python closes the coroutine of a task that it drops, by an exception; one that ignores it, too, would never return.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))
    _unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio has no other way to say so


def differs(context: contextvars.Context, clean: contextvars.Context) -> bool:
    """Return whether a slot's context is no longer as it was."""
    try:
        return context != clean
    except Exception:  # noqa: BLE001 - the values of variables may not be comparable, as arrays are not
        return True
