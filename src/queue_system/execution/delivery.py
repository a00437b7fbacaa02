"""A claimed item on its way through the worker, and the buffer in which it waits for a slot. Never talks to Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from queue_system.model.operation import Operation

_LANES = {b"h": 1, b"n": 2, b"l": 3}


class Delivery(msgspec.Struct, gc=False):
    """One item in flight under one token. `queue` is `b"high:NAME"`, `claimed` the monotonic time of its arrival."""

    incarnation: str
    token: int
    queue: bytes
    item: bytes
    operation: Operation
    claimed: float

    @property
    def operation_id(self) -> str:
        """The operation's id; an item that a foreign client wrote without one is named after its token."""
        return self.operation.operation_id or f"token-{self.token}"


class Buffer:
    """Deliveries that wait for a slot: callbacks first, then by priority, in the order of arrival."""

    __slots__ = ("_lanes", "_size")

    def __init__(self) -> None:
        self._lanes: tuple[deque[Delivery], ...] = (deque(), deque(), deque(), deque())
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, delivery: Delivery) -> None:
        """Add a delivery behind those of its priority."""
        lane = 0 if delivery.operation.phase else _LANES.get(delivery.queue[:1], 3)
        self._lanes[lane].append(delivery)
        self._size += 1

    def take(self) -> Delivery | None:
        """Remove and return the next delivery, or None."""
        if not self._size:
            return None
        self._size -= 1
        callbacks, high, normal, low = self._lanes
        return (callbacks or high or normal or low).popleft()

    def drain(self) -> list[Delivery]:
        """Remove and return all, in the order in which they would have been taken."""
        waiting = list(self)
        for lane in self._lanes:
            lane.clear()
        self._size = 0
        return waiting

    def oldest_claimed(self) -> float | None:
        """Return when the delivery that waits longest arrived."""
        return min((lane[0].claimed for lane in self._lanes if lane), default=None)

    def __iter__(self) -> Iterator[Delivery]:
        for lane in self._lanes:
            yield from lane
