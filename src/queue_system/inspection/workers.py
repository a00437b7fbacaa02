"""The workers of a fleet: which are registered, what they report about themselves, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from queue_system.broker.presence import Presence, presences
from queue_system.broker.protocol import Group
from queue_system.broker.shard import Shard
from queue_system.client.flow import Flow
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError, WrongKeyTypeError
from queue_system.inspection.reading import read
from queue_system.model.formats import beats_of, id_of, is_dead, lease_s_of, place_of

MOST_WORKERS: Final = 200
"""Of how many workers is read what each serves and holds."""

_NO_LEASE: Final = -1.0


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one worker, as it was on the server at one moment.

    A killed worker is there, too, until another one has taken over its work, within 1.5 leases: a worker lives if its
    `heartbeat` grows. What the worker reports about itself is None where it reports nothing (an older release runs,
    or its first beat is due), where the user of the server may not look, and of workers beyond the first 200.
    """

    worker_id: str
    """The worker id: the name of one life of a worker; a restarted one has another."""
    worker: str
    """`host:pid`, as in the records of operations; the whole id where an older release runs."""
    heartbeat: int
    """How often it has beaten: it grows every quarter of its lease."""
    lease_seconds: float | None
    """How long it may be silent before others declare it dead; None where that is not known."""
    dead: bool = False
    """Whether others are about to take over what it held."""
    queues: list[str] | None = None
    """The first ten names of the queues that it serves; none: it serves all."""
    more_queues: int | None = None
    """How many more it serves."""
    slots: int | None = None
    """How many operations it runs at once."""
    abandoned: int | None = None
    """How many threads and tasks of operations were given up at their limit and still run."""
    holds: int | None = None
    """How many operations it has claimed and not settled; None where that was not read."""

    @property
    def serves(self) -> str:
        """The queues, as text; empty where nothing is known."""
        return "" if self.queues is None else Presence(self.queues, self.more_queues or 0).serves


def workers_flow(shard: Shard, *, inflight: bool = True, details: bool = True) -> Flow[list[WorkerRecord]]:
    """Return the registered workers by place, those last that are declared dead.

    Without `details` nothing is read but who is registered, without `inflight` not what each holds.

    Raises:
        AccessDeniedError: the user of the server may not look at the workers.
        ServerError: typed.
    """
    entries = yield from entries_flow(shard)
    names = sorted(entries, key=lambda name: (is_dead(name), place_of(name), name))
    looked = [id_of(name) for name in names[:MOST_WORKERS]] if details else []
    told = yield from presences_flow(shard, looked)
    held: dict[str, int] = {}
    if inflight and looked:
        try:
            held = yield from inflight_flow(shard, looked)
        except (AccessDeniedError, WrongKeyTypeError):
            held = {}
    return [_record(name, entries[name], told.get(id_of(name)), held) for name in names]


def entries_flow(shard: Shard) -> Flow[dict[str, bytes]]:
    """Return the entries of all incarnations, as they are on the server. Raises ServerError."""
    entries: dict[str, bytes] = yield shard.commands.incarnations()
    return entries


def read_workers(config: QueueConfig, *, inflight: bool = False, details: bool = True) -> list[WorkerRecord] | None:
    """Read what `workers_flow` returns; None where the user of the server may not look. Raises ServerError."""
    try:
        return read(config.shard, workers_flow(config.shard, inflight=inflight, details=details))
    except AccessDeniedError:
        return None


def presences_flow(shard: Shard, worker_ids: Sequence[str]) -> Flow[dict[str, Presence]]:
    """Return what workers report about themselves; nothing where this user may not look. Raises ServerError."""
    if not worker_ids:
        return {}
    try:
        told: dict[str, Presence] = yield presences(shard.keys, worker_ids)
    except (AccessDeniedError, WrongKeyTypeError):
        return {}
    return told


def inflight_flow(shard: Shard, worker_ids: Sequence[str]) -> Flow[dict[str, int]]:
    """Return how many operations each of some workers holds. Raises ServerError."""
    if not worker_ids:
        return {}
    tokens = yield Group([shard.commands.tokens(worker_id) for worker_id in worker_ids])
    return {worker_id: len(held) for worker_id, held in zip(worker_ids, tokens, strict=True)}


def _record(name: str, entry: bytes, told: Presence | None, held: dict[str, int]) -> WorkerRecord:
    worker_id = id_of(name)
    lease_seconds = lease_s_of(entry, _NO_LEASE)
    record = WorkerRecord(
        worker_id=worker_id,
        worker=place_of(worker_id) or worker_id,
        heartbeat=beats_of(entry),
        lease_seconds=None if lease_seconds == _NO_LEASE else lease_seconds,
        dead=is_dead(name),
        holds=held.get(worker_id),
    )
    return record if told is None else msgspec.structs.replace(record, **msgspec.structs.asdict(told))
