"""How signals reach a worker's process: the first asks it to leave, a second ends it at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeAlias

from queue_system.execution.runners.forks import disown_signals
from queue_system.execution.runners.own_interrupts import blame_sender

Handler: TypeAlias = Callable[[int, FrameType | None], None]

LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Departure:
    """The wish that this process leaves."""

    def __init__(self, *, patient: bool = False) -> None:
        self.asked = False
        self._patient = patient  # a supervisor forwards what a terminal or service manager may have sent as well
        self._wake: Callable[[], None] | None = None
        self.handler: Handler = self.signalled
        """The one object of it that signals are handed to."""

    def take_signals(self) -> list[str]:
        """Handle the signals that ask a worker to leave; return the names of those that somebody else handled.

        Only the main thread may do so.
        """
        return take_signals(self.handler, *LEAVE)

    def ask(self) -> None:
        """Ask to leave in order. From any thread or signal handler."""
        self.asked = True
        if self._wake is not None:
            self._wake()

    async def wait(self) -> None:
        """Return as soon as it was asked for."""
        event = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(event.set)

        self._wake = wake
        if not self.asked:
            await event.wait()

    def signalled(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. This runs between any two instructions, so a blocked event loop cannot hold it up."""
        if self.asked and not self._patient:
            os._exit(128 + number)
        self.asked = True  # before any call: what recurses without end leaves room for none
        blame_sender(number, frame)
        self.ask()


disown_signals(Departure)


def take_signals(handler: Handler, *numbers: signal.Signals) -> list[str]:
    """Let a function handle signals, and nothing block them; return the names of those that it did not handle before.

    What runs in a worker may set handlers, too: itself, by a library, or as an event loop's `add_signal_handler` does.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    taken = [number for number in numbers if signal.getsignal(number) is not handler or number in blocked]
    for number in taken:
        signal.signal(number, handler)
    if not blocked.isdisjoint(taken):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, taken)
    return [number.name for number in taken]


def end_timers(*, repeating: bool = False) -> None:
    """Disarm the timers of signals that operations have left behind: they would interrupt the end of the process.

    With `repeating`, only those whose signals come again and again.
    """
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        if signal.getitimer(timer)[1] or not repeating:
            signal.setitimer(timer, 0)


@contextlib.contextmanager
def handling(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """Let a function handle signals inside a `with`. Only the main thread may do so."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
