"""How much to claim beyond the free slots: what will run in about 20 ms; and how long to block."""

from __future__ import annotations

import random
from typing import Final

WINDOW_S: Final = 0.020
RELEASE_AFTER_S: Final = 0.050
LARGEST_TURN: Final = 400
_LARGEST: Final = 2 * LARGEST_TURN  # one turn's worth is run while the next is fetched
_SMALL_TURN: Final = 100
_LONGEST_BLOCK_S: Final = 5.0
_SHORTEST_BLOCK_S: Final = 0.01
_WEIGHT: Final = 0.25
_MOMENT_S: Final = 0.002
_GATHERED_SHARE: Final = 0.25
LONGEST_GATHER_S: Final = 0.010
_NOT_WORTH_IT_S: Final = 0.0005
"""What a round trip may take anyway."""


class Prefetch:
    """Grows while slots starve between two turns, shrinks when claimed work had to wait, knows how long work takes."""

    __slots__ = ("_allowance", "_mean_s", "_slots")

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._allowance = 0.0
        """How many deliveries have turned out to be worth claiming ahead, however long they run."""
        self._mean_s: float | None = None
        """How long an operation has run of late, on average; None: none has ended yet."""

    @property
    def allowance(self) -> int:
        """How many deliveries may wait for a slot. 0 while nothing is known."""
        if self._mean_s is None:
            return 0
        runs_in_window = WINDOW_S * self._slots / max(self._mean_s, 1e-9)
        return int(min(self._allowance, runs_in_window, _LARGEST))

    def room(self, free_slots: int, waiting: int) -> int:
        """Return how many deliveries to claim; 0 when that is not worth a round trip."""
        if waiting - free_slots > self.allowance // 2:  # what a free slot is about to take does not wait
            return 0
        return max(0, min(free_slots + self.allowance - waiting, LARGEST_TURN))

    def gather_s(self, free_slots: int, waiting: int, unsettled: int) -> float:
        """Return for how long, in s, settlements may wait for a larger turn, the slots having work meanwhile; or 0.

        Where operations are short, that is a moment, for a turn to become worth it. Else it is a part of what an
        operation takes; but where as many have ended as there are slots, they end together, and all are there.
        """
        if self._mean_s is None or waiting <= free_slots or unsettled >= _SMALL_TURN:
            return 0.0
        if self.allowance >= _SMALL_TURN:
            return _MOMENT_S if waiting > self.allowance // 4 else 0.0
        gather_s = min(_GATHERED_SHARE * self._mean_s, LONGEST_GATHER_S)
        return gather_s if unsettled < self._slots and gather_s > _NOT_WORTH_IT_S else 0.0

    def observe_runs(self, durations_s: list[float]) -> None:
        """Note how long the operations of a turn ran."""
        if not durations_s:
            return
        mean_s = sum(durations_s) / len(durations_s)
        known = self._mean_s
        self._mean_s = mean_s if known is None else known + _WEIGHT * (mean_s - known)

    def observe_running(self, longest_s: float) -> None:
        """Note how long an operation has been running already."""
        if self._mean_s is not None and longest_s > WINDOW_S:
            self._mean_s = max(self._mean_s, longest_s / self._slots)

    def observe_starving(self) -> None:
        """Note that slots were free while a turn was under way and there was more to claim."""
        self._allowance = min(max(2.0 * self._allowance, float(self._slots)), _LARGEST)

    def observe_wait(self, waited_s: float) -> None:
        """Note how long the last delivery waited for a slot."""
        if waited_s > WINDOW_S:
            self._allowance *= max(0.25, 0.8 * WINDOW_S / waited_s)


def block_seconds(next_due_ms: int, now_ms: int, rest_s: float | None = None) -> float:
    """Return how long an idle worker blocks: until the next item is due, for at most 5 s. -1 means that none is.

    Nor does it block for longer than until the rest of a queue ends.
    """
    longest = _LONGEST_BLOCK_S * random.uniform(0.9, 1.0)
    if rest_s is not None:
        longest = min(longest, rest_s)
    if next_due_ms >= 0:
        longest = min(longest, (next_due_ms - now_ms) / 1000)
    return max(longest, _SHORTEST_BLOCK_S)
