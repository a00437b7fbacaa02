"""Read-only views of what is in Redis."""

from __future__ import annotations

from typing import Any

from queue_system.broker.shard import Shard
from queue_system.client.flow import Flow
from queue_system.model.keys import split_queue


def some_queues_flow(shard: Shard) -> Flow[set[str]]:
    """Return the names of queues that fit into one request: all of them, unless there are many. Raises ServerError."""
    page = yield shard.commands.status("0")
    queues = [split_queue(key.removeprefix(shard.keys.prefix).encode()) for key in page.lists]
    return {queue[1] for queue in queues if queue is not None}


def status_flow(shard: Shard) -> Flow[dict[str, Any]]:
    """Return lengths and counters, as `QueueManager.get_queue_status` describes them. Raises ServerError."""
    keys = shard.keys
    commands = shard.commands
    first = page = yield commands.status("0")
    lists = dict(page.lists)
    while page.cursor != "0":
        page = yield commands.status(page.cursor)
        lists.update(page.lists)
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
        "status_time": first.now_ms / 1000,
    }
