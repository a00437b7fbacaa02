"""Answers that wait to be taken in while the server already works on the next turn. Never talks to Redis."""

from __future__ import annotations

from collections.abc import Callable


class Arrivals:
    """Answers in the order in which they came, each as what is to be done about it."""

    __slots__ = ("_waiting", "deliveries")

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self.deliveries = 0
        """How many deliveries are among them."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, arrival: Callable[[], None], deliveries: int = 0) -> None:
        """Take note of an answer and of how many deliveries are in it."""
        self._waiting.append(arrival)
        self.deliveries += deliveries

    def take_in(self) -> bool:
        """Do what the answers ask for: book settlements, hold what was claimed. False: there were none."""
        waiting = self._waiting
        self.clear()
        for arrival in waiting:
            arrival()
        return bool(waiting)

    def clear(self) -> None:
        """Forget all, because the incarnation was reclaimed."""
        self._waiting = []
        self.deliveries = 0
