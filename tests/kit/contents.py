"""What tests read in Redis, as it stands there. Never writes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import redis

from queue_system import OperationRecord, QueueConfig, QueueManager
from tests.kit.waiting import DEADLINE_S


def key_space(client: redis.Redis, prefix: str) -> dict[bytes, Any]:
    """Every key under the prefix with its value as the server dumps it."""
    return {key: client.dump(key) for key in sorted(client.scan_iter(match=f"{prefix}*", count=1000))}


def documents(client: redis.Redis, key: str) -> list[dict[str, Any]]:
    """The items or dead letters of a list, the one that was put in last first."""
    found: Any = client.lrange(key, 0, -1)
    return [json.loads(each) for each in found]


async def next_letter(client: redis.Redis, key: str) -> dict[str, Any]:
    """Wait until a dead letter is in a list and return the newest; it stays there."""
    letter: Any = await asyncio.to_thread(client.blmove, key, key, int(DEADLINE_S), "LEFT", "LEFT")
    assert letter is not None, f"no letter came to {key}"
    return dict(json.loads(letter))


def record_of(queue: QueueManager, operation_id: str) -> OperationRecord:
    """What a manager tells of an operation that it knows."""
    record = queue.get_operation(operation_id)
    assert record is not None, f"nothing is known of {operation_id}"
    return record


@dataclass(frozen=True)
class Record:
    """A record of an operation as it stands in Redis."""

    status: str
    queue: str
    deduplication_key: str
    attempts: int
    body: Any
    ttl_ms: int


def read_record(client: redis.Redis, config: QueueConfig, operation_id: str) -> Record:
    """Read the record of an operation that has one."""
    key = config.keys.operation(operation_id)
    raw: Any = client.get(key)
    ttl: Any = client.pttl(key)
    line, _, body = raw.decode().partition("\n")
    status, _, _, queue, dedup_key, *rest = line.split("\t")
    return Record(status, queue, dedup_key, int(rest[0]) if rest else 0, json.loads(body) if body else None, ttl)
