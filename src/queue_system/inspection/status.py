"""Read-only views of what is in Redis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from queue_system.broker.protocol import Group
from queue_system.broker.replies import StatusPage
from queue_system.broker.role import PRIMARY
from queue_system.broker.shard import Shard
from queue_system.client.flow import Flow
from queue_system.errors import AccessDeniedError
from queue_system.model.keys import split_queue


@dataclass(frozen=True, slots=True)
class Reading:
    """All pages of the status in one; `complete` tells whether all lists are there.

    `replica_of` is the primary's address where the server is a replica, whose data may be old.
    """

    page: StatusPage
    complete: bool
    replica_of: str


def some_queues_flow(shard: Shard) -> Flow[set[str]]:
    """Return the names of queues that fit into one request: all of them, unless there are many. Raises ServerError."""
    page = yield shard.commands.status("0")
    queues = [split_queue(key.removeprefix(shard.keys.prefix).encode()) for key in page.lists]
    return {queue[1] for queue in queues if queue is not None}


def pages_flow(shard: Shard, most_lists: int | None = None) -> Flow[Reading]:
    """Read the status page by page, with about `most_lists` lists at most (None: all). Raises ServerError."""
    status = shard.commands.status
    try:
        first, replica_of = yield Group([status("0"), PRIMARY], together=True)
    except AccessDeniedError:  # to INFO, perhaps
        first = yield status("0")
        replica_of = ""
    page: StatusPage = first
    lists = dict(page.lists)
    running = page.running
    workers = page.workers
    while True:
        has_room = most_lists is None or len(lists) < most_lists
        cursor = page.cursor if page.cursor != "0" and has_room else ""
        workers_cursor = page.workers_cursor if page.workers_cursor != "0" else ""
        if not cursor and not workers_cursor:
            break
        left = page.cursor
        page = yield status(cursor, workers_cursor)
        if not cursor:
            page = replace(page, cursor=left)
        lists |= page.lists
        running += page.running
        workers += page.workers
    return Reading(replace(first, lists=lists, running=running, workers=workers), page.cursor == "0", replica_of)


def status_flow(shard: Shard) -> Flow[dict[str, Any]]:
    """Return lengths and counters, as `QueueManager.get_queue_status` describes them. Raises ServerError."""
    keys = shard.keys
    reading = yield from pages_flow(shard)
    first = reading.page
    lists = first.lists
    resting = [
        {"queue": rest.queue, "worker": rest.worker, "until": rest.until_ms / 1000, "reason": rest.reason}
        for rest in first.resting
    ]
    return {
        **dict(sorted(lists.items())),
        keys.failures: first.failures,
        keys.system_errors: first.system_errors,
        keys.delayed: first.delayed,
        f"{keys.prefix}running": first.running,
        "total_items": sum(lists.values()),
        "metrics": first.counters or {},
        **({"resting": resting} if resting else {}),
        **({"replica_of": reading.replica_of} if reading.replica_of else {}),
        "status_time": first.now_ms / 1000,
    }
