"""What the tests of server faults share: servers, a producer that goes on, an audit of all keys. Never injects any."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.faults.support.bench import Bench, WorkerProcess
from tests.faults.support.producer import Producer
from tests.kit.servers import NO_REDIS, REDIS, OwnServer
from tests.kit.waiting import wait_until
from tests.scripts.support import Broker

BACK_AT_WORK_WITHIN_S = 5.0
PRIORITIES = ("high", "normal", "low")
_LIVE = {"queued", "delayed", "running"}
_DEAD = {"failed", "rejected"}

_VALKEY = pytest.param(None, id="valkey")
_REDIS = pytest.param(REDIS, id="redis", marks=pytest.mark.skipif(not REDIS.exists(), reason=NO_REDIS))
on_each_server_in_full = pytest.mark.parametrize(
    "binary", [_VALKEY, _REDIS] if os.environ.get("QUEUE_SYSTEM_FAULTS") == "full" else [_VALKEY]
)
"""Run a test on the server that the package brings (`binary` is None), and in the full form also on Redis, if there."""


def producing(bench: Bench, *, label: str = "live", retries: int = 3) -> Producer:
    """Return a producer of a bench's server for the queue that its workers serve."""
    limits = {"connection_timeout": 1.0, "max_connection_retries": retries}
    return Producer(bench.server.url, bench.prefix, "work", label=label, pause_s=0.002, **limits)


def start_workers(bench: Bench, count: int, **settings: Any) -> list[WorkerProcess]:
    """Start workers at the same time, and wait until all are ready."""
    workers = [bench.start_worker(ready=False, **settings) for _ in range(count)]
    for worker in workers:
        worker.wait_ready()
    return workers


def wait_resumed(bench: Bench, workers: list[WorkerProcess], since_ns: int) -> float:
    """Wait until each worker has started an operation since a moment; return how many s the last of them took."""

    def first_starts() -> dict[int, int]:
        starts = [entry for entry in bench.journal.entries("start") if entry.at_ns > since_ns]
        return {entry.pid: entry.at_ns for entry in reversed(starts)}

    expected = {worker.pid for worker in workers}
    try:
        wait_until(lambda: expected <= first_starts().keys(), "each worker is back at work", BACK_AT_WORK_WITHIN_S)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{bench.logs()}") from None
    first = first_starts()
    return round((max(first[pid] for pid in expected) - since_ns) / 1e9, 2)


def wait_ended(bench: Bench, ids: list[str], within_s: float) -> float:
    """Wait until each of some operations has ended at least once; return how many s that took."""
    try:
        return wait_until(lambda: set(ids) <= set(bench.journal.count("end")), "new operations ran", within_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{bench.logs()}") from None


def impatient(server: OwnServer, **settings: Any) -> redis.Redis:
    """Return a client that sends nothing twice."""
    return server.client(retry=Retry(NoBackoff(), 0), **settings)


def snapshot(server: OwnServer) -> dict[str, Any]:
    with contextlib.closing(Broker(server, "queue:")) as broker:
        return broker.snapshot()


def answer_to_ping(client: redis.Redis) -> str:
    """Return what a server answers to PING: "PONG", or the error's type and text."""
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        return f"{type(error).__name__} {error}"
    return "PONG"


@dataclass(frozen=True, slots=True)
class Item:
    """An item and where it lies: the name of its key, without the prefix."""

    place: str
    operation_id: str
    is_callback: bool

    @property
    def is_dead_letter(self) -> bool:
        return self.place in ("failures", "system_errors")


def items_in(state: Mapping[str, Any]) -> list[Item]:
    """Return every item of a snapshot, dead letters included."""
    found = []
    for place, item in _raw_items(state):
        members = json.loads(item)
        found.append(Item(place, members["operation_id"], bool(members.get("phase"))))
    return found


def contradictions(state: Mapping[str, Any]) -> list[str]:
    """Return, in words, what a snapshot of all keys holds that no sequence of whole transitions can lead to."""
    items = items_in(state)
    records = {
        key.removeprefix("operation:"): value.split(b"\t", 1)[0].decode()
        for key, value in state.items()
        if key.startswith("operation:") and value is not None  # it may expire while it is read
    }
    problems = [
        f"{operation_id} lies in {count} places"
        for callbacks in (False, True)
        for operation_id, count in Counter(i.operation_id for i in items if i.is_callback is callbacks).items()
        if count > 1
    ]
    problems += _wrong_records(items, records)
    problems += _wrong_indexes(state)
    holders = state.get("dedup", {})
    problems += [
        f"{key!r} is held by {held!r}" for key, held in holders.items() if records.get(held.decode()) not in _LIVE
    ]
    counters = {name.decode(): int(value) for name, value in state.get("metrics", {}).items()}
    ended = sum(counters.get(name, 0) for name in ("processed", "failed", "rejected"))
    live = sum(not (item.is_callback or item.is_dead_letter) for item in items)
    if counters.get("enqueued", 0) != ended + live:
        problems.append(f"{counters.get('enqueued', 0)} were enqueued, but {ended} ended and {live} live")
    return problems


def _wrong_records(items: list[Item], records: Mapping[str, str]) -> Iterator[str]:
    """The records of finished operations expire; those of live ones do not."""
    live = {item.operation_id for item in items if not (item.is_callback or item.is_dead_letter)}
    for item in items:
        status = records.get(item.operation_id)
        if item.operation_id in live:
            fits = status in _LIVE
        elif item.is_callback:
            fits = status not in _LIVE
        else:
            fits = status is None or status in _DEAD
        if not fits:
            yield f"{item} has a record that says {status}"
    for operation_id in records.keys() - live:
        if records[operation_id] in _LIVE:
            yield f"{operation_id} is {records[operation_id]} and lies nowhere"


def _wrong_indexes(state: Mapping[str, Any]) -> Iterator[str]:
    registry = {key.decode().partition(":")[2] for key in state.get("registry", ())}
    for key in state:
        priority, _, name = key.partition(":")
        if priority in PRIORITIES:
            indexed = {member.decode() for member, _ in state.get(f"ready:{priority}", ())}
            if key not in registry:
                yield f"{key} is not in the registry"
            if name not in indexed:
                yield f"{key} is not in its ready index"
    workers = {name.decode().removeprefix("dead:") for name in state.get("workers", ())}
    for key, value in state.items():
        tokens = [int(token) for token in value if token.isdigit()] if key.startswith("inflight:") else []
        if tokens and key.removeprefix("inflight:") not in workers:
            yield f"{key} belongs to nobody"
        if tokens and max(tokens) > int(state["token"]):
            yield f"{key} holds a token from the future"


def _raw_items(state: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    for key, value in state.items():
        if key.startswith(tuple(f"{priority}:" for priority in PRIORITIES)) or key in ("failures", "system_errors"):
            yield from ((key, item) for item in value)
        elif key == "delayed":
            yield from ((key, member.split(b"\n", 2)[2]) for member, _ in value)
        elif key.startswith("inflight:"):
            yield from ((key, held.partition(b"\n")[2]) for token, held in value.items() if token.isdigit())
