"""What the whole fleet looks like in Redis: depths, ages, counters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from queue_system.broker.replies import Resting
from queue_system.broker.shard import Shard
from queue_system.client.flow import Flow
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError
from queue_system.inspection.beats import Beats
from queue_system.inspection.reading import read
from queue_system.inspection.status import pages_flow
from queue_system.inspection.workers import entries_flow
from queue_system.model.keys import split_queue

MOST_QUEUES: Final = 2000
"""How many lists are read at most, so that one scrape stays small."""

_PAGE: Final = 200
_TIMES = re.compile(rb'"(timestamp|due)":(\d{1,11}(?:\.\d{1,9})?)')


@dataclass(frozen=True, slots=True)
class QueueStats:
    """One list. `oldest_age_s` is how long ago its next item was enqueued or due; None if nothing waits or says so."""

    name: str
    priority: str
    depth: int
    oldest_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class FleetStats:
    """The fleet at `at`, in Unix seconds of the server. `complete` says whether all lists are among `queues`."""

    at: float
    queues: Sequence[QueueStats]
    complete: bool
    delayed: int
    running: int
    workers: int
    dead_letters: dict[str, int]
    counters: dict[str, int]
    resting: Sequence[Resting] = ()
    """The queues that workers leave alone, because they cannot resolve what these hold."""
    alive: int | None = None
    """Workers whose heartbeat was seen to go on; None where nobody looked, or may not."""
    replica_of: str = ""
    """The address of the primary where the server is a replica, so that all of this may be old."""


class _Times(msgspec.Struct):
    timestamp: float = 0.0
    due: float | None = None


_decode = msgspec.json.Decoder(_Times).decode


def fleet_flow(shard: Shard) -> Flow[FleetStats]:
    """Return the stats, with up to `MOST_QUEUES` lists. Raises ServerError."""
    commands = shard.commands
    prefix = shard.keys.prefix
    reading = yield from pages_flow(shard, MOST_QUEUES)
    first = reading.page
    names = {key.removeprefix(prefix): depth for key, depth in sorted(first.lists.items())}
    filled = [name for name, depth in names.items() if depth]
    ages: dict[str, float | None] = {}
    for start in range(0, len(filled), _PAGE):
        some = filled[start : start + _PAGE]
        items = yield commands.oldest(some)
        ages |= zip(some, (_age_s(item, first.now_ms / 1000) for item in items), strict=True)
    return FleetStats(
        at=first.now_ms / 1000,
        queues=tuple(_stats(names, ages)),
        complete=reading.complete,
        delayed=first.delayed,
        running=first.running,
        workers=first.workers,
        dead_letters={"failures": first.failures, "system_errors": first.system_errors},
        counters=first.counters or {},
        resting=tuple(first.resting),
        replica_of=reading.replica_of,
    )


def read_fleet(config: QueueConfig) -> FleetStats:
    """Read the stats, with up to `MOST_QUEUES` lists. Raises ServerError."""
    shard = config.shard
    return read(shard, fleet_flow(shard))


class FleetReader:
    """Reads the fleet's stats again and again, and so sees whose heartbeat goes on. For one thread at a time."""

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._beats = Beats()

    def __call__(self) -> FleetStats:
        """Read the stats, `alive` among them. Raises ServerError."""
        stats = read_fleet(self._config)
        try:
            shard = self._config.shard
            entries = read(shard, entries_flow(shard))
        except AccessDeniedError:
            return stats
        return replace(stats, alive=self._beats.alive(entries))


def _stats(depths: dict[str, int], ages: dict[str, float | None]) -> Iterator[QueueStats]:
    for queue, depth in depths.items():
        if (parts := split_queue(queue.encode())) is not None:
            yield QueueStats(parts[1], parts[0], depth, ages.get(queue))


def _age_s(item: bytes | None, now: float) -> float | None:
    """Return how long an item has been ready. Of a large one there is only the end, which holds its own times last."""
    if item is None:
        return None
    try:
        times = _decode(item)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        found = {name: float(value) for name, value in _TIMES.findall(item)}
        times = _Times(found.get(b"timestamp", 0.0), found.get(b"due"))
    since = times.due or times.timestamp
    return round(max(0.0, now - since), 3) if since > 0 else None


def rests_of(stats: FleetStats) -> dict[str, list[Resting]]:
    """Return who leaves which queue alone, by queue."""
    rests: dict[str, list[Resting]] = {}
    for rest in stats.resting:
        rests.setdefault(rest.queue, []).append(rest)
    return rests
