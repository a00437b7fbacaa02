"""A clock that stands still until a test moves it. Never reads the real time."""

from __future__ import annotations


class ManualClock:
    """Both clocks in one: they start at 1000 s and move together."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
