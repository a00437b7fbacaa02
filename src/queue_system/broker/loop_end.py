"""Ends what is tied to an event loop before the loop is closed.

`asyncio.run` cancels tasks and ends generators first; a program that closes a loop by hand leaves them as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from queue_system.resilience.threads import call_in_thread

_Owner = TypeVar("_Owner")

_TURNS_WITHIN_S: Final = 5.0


class _Tied:
    """What is tied to one event loop, which closes it."""

    def __init__(self) -> None:
        self.actions: weakref.WeakKeyDictionary[Any, Callable[[Any], object]] = weakref.WeakKeyDictionary()
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.ends = False

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the tasks, which need a turn for that and one to close what they opened; then act."""
        self.ends = True
        if tasks := list(self.tasks):
            for task in tasks:
                task.cancel()
            _turn(loop)
            _turn(loop)
        if owners := list(self.actions.items()):
            for owner, action in owners:
                action(owner)
            _turn(loop)  # lets the loop close what was dropped; a task that waits for that gets no further


_tied: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Tied]] = weakref.WeakKeyDictionary()


def before_close(loop: asyncio.AbstractEventLoop, owner: _Owner, action: Callable[[_Owner], object]) -> None:
    """Call `action(owner)` before the loop is closed, if the owner still lives then."""
    _tied_to(loop).actions[owner] = action


def cancel_before_close(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Cancel a task before its loop is closed: in one left to the garbage collector, no `finally` closes anything."""
    _tied_to(loop).tasks.add(task)


@contextlib.contextmanager
def cancelled_before_close() -> Iterator[None]:
    """Cancel the current task if its loop is closed while it is in the block."""
    task = asyncio.current_task()
    tasks = _tied_to(asyncio.get_running_loop()).tasks
    if task is None or task in tasks:
        yield
        return
    tasks.add(task)
    try:
        yield
    finally:
        tasks.discard(task)


def is_being_closed(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether somebody is about to close the loop by hand; no task of it goes on after a few turns."""
    tied = _tied.get(loop)
    return tied is not None and tied.ends


def _tied_to(loop: asyncio.AbstractEventLoop) -> _Tied:
    tied = _tied.get(loop)
    if tied is None:
        tied = _tied[loop] = _Tied()
        with contextlib.suppress(TypeError):  # a loop that cannot be changed is left as it is
            vars(loop)["close"] = _closing(loop, tied, loop.close)
    return tied


def _closing(loop: asyncio.AbstractEventLoop, tied: _Tied, close: Callable[[], None]) -> Callable[[], None]:
    def closing() -> None:
        if loop.is_running() or loop.is_closed():
            close()  # which refuses, or does nothing
            return
        vars(loop).pop("close", None)
        try:
            if (tied.tasks or tied.actions) and asyncio._get_running_loop() is None:  # noqa: SLF001 - it raises nothing
                tied.end(loop)
            elif tied.tasks or tied.actions:  # in this thread, another loop is in its turn
                with contextlib.suppress(TimeoutError):
                    call_in_thread(tied.end, (loop,), {}, _TURNS_WITHIN_S)
        finally:
            close()

    return closing


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()
