"""Which workers are alive, seen from entries that keep changing: a killed worker stays registered. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from queue_system.model.formats import is_dead, lease_s_of

_UNTOLD_LEASE_S: Final = 15.0


class Beats:
    """The entries of all workers, and since when each is as it is, on this process's monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[bytes, float]] = {}

    def alive(self, entries: Mapping[str, bytes]) -> int:
        """Take what was read, and return how many workers beat: their entry has changed within their own lease.

        One that was never seen before has the time of its lease to show a beat.
        """
        now = self._clock()
        seen = {}
        for worker, entry in entries.items():
            if not is_dead(worker):
                known, since = self._seen.get(worker, (b"", now))
                seen[worker] = (entry, since if known == entry else now)
        self._seen = seen
        return sum(now - since <= lease_s_of(entry, _UNTOLD_LEASE_S) for entry, since in seen.values())
