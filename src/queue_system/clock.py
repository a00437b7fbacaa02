"""The time source that other modules have injected."""

from __future__ import annotations

import time
from typing import Final, Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "ms_since", "unix_seconds"]


class Clock(Protocol):
    """What a module needs to tell the time; tests inject their own."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences have a meaning."""
        ...

    def time(self) -> float:
        """Seconds since the Unix epoch; may jump when the host's clock is set."""
        ...


class SystemClock:
    """The clocks of the operating system, also where somebody puts others into the module `time`, as freezegun does."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    """Seconds on a clock that never goes back; only differences have a meaning."""

    time = staticmethod(time.time)
    """Seconds since the Unix epoch; may jump when the host's clock is set."""


SYSTEM_CLOCK: Final = SystemClock()


def unix_seconds() -> float:
    """Return the time now, to the ms."""
    return time.time_ns() // 1_000_000 / 1000


def ms_since(started_ns: int) -> float:
    """Return how many ms, to the µs, have passed since a reading of `time.perf_counter_ns`."""
    return (time.perf_counter_ns() - started_ns) // 1000 / 1000
