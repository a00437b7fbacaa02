"""Gives a process to one suspect at a time, whatever else the process holds. Never talks to Redis.

A death takes along everything that the process holds: all workers, of all configurations, in all threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 0.25
"""How long others may start nothing before a suspect gives up; twice as long after each time that it did.

After one that could start, twice as long as that had to wait.
"""
LONGEST_PATIENCE_S: Final = 30.0
STREAK_S: Final = 0.25
"""For how long suspects may follow each other."""
REST_IN_VAIN: Final = 4
"""How many times as long as it was kept from them for nothing, the process belongs to the others again."""
_DEAF_S: Final = 60.0
_LOOK_AGAIN_S: Final = 0.01


class Quarantine:
    """Who of a process's workers may start anything. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.reset()

    def reset(self) -> None:
        """Forget everybody, as in a forked child."""
        self._lock = threading.Lock()
        self._seats: weakref.WeakSet[Seat] = weakref.WeakSet()
        self._owner: Seat | None = None
        """Whose suspect has the process for itself, or waits for that."""
        self._since = 0.0
        """Since when it has an owner. All times are monotonic."""
        self._begun = 0.0
        """When the owner's first suspect started; 0: none has."""
        self._rest_until = 0.0
        """Until when the process belongs to the others again."""
        self._patience_s = PATIENCE_S
        """For how long the owner may keep it from the others and start none."""

    def seat(self, loop: asyncio.AbstractEventLoop, holds: Callable[[], bool], wake: Callable[[], None]) -> Seat:
        """Return the place of a worker; `wake` is called on its loop when it has to look at it."""
        seat = Seat(self, loop, holds, wake)
        with self._lock:
            self._seats.add(seat)
        return seat

    def now(self) -> float:
        """Return the monotonic time."""
        return self._now()

    def owner(self) -> Seat | None:
        """Return whose suspect has the process for itself, or waits for that."""
        owner = self._owner
        if owner is not None and (owner.loop.is_closed() or self._now() - owner.seen > _DEAF_S):
            self._owner = owner = None  # nobody will ever end it
        return owner

    def enter(self, seat: Seat) -> bool:
        """Let a worker claim, unless another one has the process for itself."""
        with self._lock:
            if self.owner() not in (None, seat):
                return False
            seat.busy = True
            return True

    def ask(self, seat: Seat, *, empty: bool) -> bool:
        """Give the process to a worker, whose others then start nothing more; return whether it has it.

        Not while the others have their turn, unless none of them, nor this one if it is `empty`, holds anything.
        """
        with self._lock:
            now = self._now()
            owner = self.owner()
            if owner is not None:
                return owner is seat
            if now < self._rest_until and not (empty and not any(other.holds() for other in self.others(seat))):
                return False
            self._owner = seat
            self._since = now
            self._begun = 0.0
            seat.seen = now
        self._wake(seat)
        return True

    def others(self, seat: Seat) -> list[Seat]:
        """Return the other workers' places."""
        return [other for other in self._seats if other is not seat and not other.loop.is_closed()]

    def rest_s(self) -> float:
        """Return for how many s the others still have their turn."""
        return max(0.0, self._rest_until - self._now())

    def begin(self) -> None:
        """Note that a suspect of the owner starts."""
        if not self._begun:
            self._begun = self._now()
            self._patience_s = min(max(PATIENCE_S, 2 * self._owned_s()), LONGEST_PATIENCE_S)

    def may_go_on(self) -> bool:
        """Return whether one more suspect of the owner may follow."""
        return self._now() - self._begun <= STREAK_S

    def _owned_s(self) -> float:
        return self._now() - self._since

    def is_overdue(self) -> bool:
        """Return whether the others have waited for long enough."""
        return self._owned_s() > self._patience_s

    def end(self, seat: Seat, *, in_vain: bool) -> None:
        """Give the process back to all; `in_vain`: no suspect could be started."""
        with self._lock:
            if self._owner is not seat:
                return
            rests = REST_IN_VAIN if in_vain else 1
            self._owner = None
            self._rest_until = self._now() + rests * self._owned_s()
            if in_vain:
                self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
        self._wake(seat)

    def remove(self, seat: Seat) -> None:
        """Note that a worker has ended."""
        self.end(seat, in_vain=False)
        with self._lock:
            self._seats.discard(seat)
        seat.vacate()

    def _wake(self, seat: Seat) -> None:
        for other in self.others(seat):
            other.call()


class Seat:
    """One worker's place in its process."""

    def __init__(
        self,
        quarantine: Quarantine,
        loop: asyncio.AbstractEventLoop,
        holds: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self.quarantine = quarantine
        self.loop = loop
        self.holds = holds
        self.busy = False
        """Whether anything may be booked on the worker: it claims or holds something."""
        self.seen = 0.0
        self._wake = wake

    @property
    def taken(self) -> bool:
        """Whether some worker has the process for itself, or waits for that."""
        return self.quarantine._owner is not None  # noqa: SLF001

    @property
    def yields(self) -> bool:
        """Whether another worker has the process for itself, so that nothing may be claimed or started here."""
        return self.quarantine._owner is not None and self.quarantine.owner() not in (None, self)  # noqa: SLF001

    @property
    def owns(self) -> bool:
        """Whether this worker has the process for itself, or waits for that."""
        return self.quarantine._owner is self  # noqa: SLF001

    @property
    def alone(self) -> bool:
        """Whether nothing may be booked on any other worker of the process."""
        return not any(other.busy for other in self.quarantine.others(self))

    def enter(self) -> bool:
        """Return whether this worker may claim; from then on it counts as busy."""
        # A busy worker is waited for: one that asks for the process now will find it busy.
        return (self.busy and not self.taken) or self.quarantine.enter(self)

    async def wait(self) -> None:
        """Wait until this worker may claim."""
        while True:
            if self.enter():
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    def vacate(self) -> None:
        """Note that nothing is booked on this worker any more."""
        self.busy = False
        if (owner := self.quarantine.owner()) is not None:
            owner.call()

    def call(self) -> None:
        """Let the worker look at its place, from any thread."""
        with contextlib.suppress(RuntimeError):  # its loop was closed
            self.loop.call_soon_threadsafe(self._wake)


PROCESS: Final = Quarantine()
"""The quarantine of this process."""

os.register_at_fork(after_in_child=PROCESS.reset)
