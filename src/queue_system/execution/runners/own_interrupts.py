"""Distinguishes a SIGINT that an operation sends to its own process from one of an operator."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

from queue_system.execution.runners.threads import ThreadPool
from queue_system.execution.slots import CURRENT, blame

_SENDERS: Final = frozenset({"kill", "killpg", "raise_signal", "pthread_kill", "interrupt_main"})


def blame_sender(number: int, frame: FrameType | None) -> None:
    """Note, in a signal's handler, which operation has sent it, if one has: what was only at work meanwhile has not."""
    deed = f"it sent {signal.Signals(number).name} to its own process"
    if frame is not None and _SENDERS.intersection(frame.f_code.co_names) and blame(deed):
        return
    for top in sys._current_frames().values():  # noqa: SLF001 - a thread's signal is handled in the main thread
        _blame_thread(top, deed)


def _blame_thread(frame: FrameType | None, deed: str) -> None:
    """Blame what runs in a thread if its code sends signals; it may have gone on to other code meanwhile."""
    sends = False
    while frame is not None:
        if frame.f_code is ThreadPool._serve.__code__:  # noqa: SLF001 - whose call runs in this thread
            slot = frame.f_locals["call"].context.get(CURRENT) if sends else None
            if slot is not None:
                slot.deed = deed
            return
        sends = sends or not _SENDERS.isdisjoint(frame.f_code.co_names)
        frame = frame.f_back


def watch_interrupts() -> None:
    """Until `unwatch_interrupts`, note which operation sends SIGINT to its own program of `asyncio.run`.

    The handler that `asyncio.run` has set is changed, not replaced: at its end it takes back its own only.
    """
    handler = _handler_of_a_runner()
    if handler is not None and not isinstance(handler.func, _Noting):
        _change(handler, _Noting(handler.func))


def unwatch_interrupts() -> None:
    """Undo `watch_interrupts`."""
    handler = _handler_of_a_runner()
    if handler is not None and isinstance(handler.func, _Noting):
        _change(handler, handler.func.method)


class _Noting:
    """What `asyncio.run` calls on SIGINT, with a note of the operation that has sent it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.__self__: object = getattr(method, "__self__", None)  # whose method it is, as `forks` looks for

    def __call__(self, number: int, frame: FrameType | None, **kwargs: Any) -> Any:
        try:  # noqa: SIM105 - `suppress` is two more calls, for which there may be no room
            blame_sender(number, frame)
        except (RecursionError, MemoryError):
            pass  # what runs here leaves no room for a note: the interrupt counts all the same
        return self.method(number, frame, **kwargs)


def _handler_of_a_runner() -> partial[Any] | None:
    """Return the handler of the program in this thread; only the main thread has one."""
    if threading.current_thread() is not threading.main_thread():
        return None
    handler = signal.getsignal(signal.SIGINT)
    if type(handler) is partial and isinstance(getattr(handler.func, "__self__", None), asyncio.Runner):
        return handler
    return None


def _change(handler: partial[Any], func: Callable[..., Any]) -> None:
    handler.__setstate__((func, handler.args, handler.keywords, None))  # type: ignore[attr-defined]
