"""Tells a SIGINT that an operation sends to its own process from one of an operator. Never handles a signal itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from functools import partial
from types import FrameType
from typing import Any, Final

from queue_system.execution.slots import CURRENT, blame
from queue_system.execution.threads import ThreadPool

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


class _Watched(partial[Any]):
    """The handler that `asyncio.run` sets, which cancels its program; the operation that sent the signal is noted."""

    handler: Any

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        blame_sender(*args)
        return super().__call__(*args, **kwargs)


def watch_interrupts() -> None:
    """Until `unwatch_interrupts`, note which operation sends SIGINT to its own program of `asyncio.run`."""
    handler = signal.getsignal(signal.SIGINT)
    if (
        threading.current_thread() is threading.main_thread()
        and type(handler) is partial
        and isinstance(getattr(handler.func, "__self__", None), asyncio.Runner)
    ):
        watched = _Watched(handler.func, *handler.args, **handler.keywords)
        watched.handler = handler
        signal.signal(signal.SIGINT, watched)


def unwatch_interrupts() -> None:
    """Give the signal back to `asyncio.run`."""
    watched = signal.getsignal(signal.SIGINT)
    if isinstance(watched, _Watched):
        with contextlib.suppress(ValueError):  # only the main thread may
            signal.signal(signal.SIGINT, watched.handler)
