"""How signals reach a worker's process: the first asks it to leave, a second ends it at once. Never logs or locks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from queue_system.execution.forks import disown_signals
from queue_system.execution.own_interrupts import blame_sender

LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Departure:
    """The wish that this process leaves."""

    def __init__(self, *, patient: bool = False) -> None:
        self.asked = False
        self._patient = patient  # a supervisor forwards what a terminal or service manager may have sent as well
        self._wake: Callable[[], None] | None = None

    def ask(self) -> None:
        """Ask to leave in order. From any thread or signal handler."""
        self.asked = True
        if self._wake is not None:
            self._wake()

    async def wait(self) -> None:
        """Return as soon as it was asked for."""
        event, loop = asyncio.Event(), asyncio.get_running_loop()

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
        blame_sender(number, frame)
        self.ask()


disown_signals(Departure)


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Let a function handle signals inside a `with`. Only the main thread may do so."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
