"""What waits in a queue: count what is due later, and remove all of it."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Collection
from functools import partial

from queue_system.broker.requests import next_page
from queue_system.broker.shard import Shard
from queue_system.client.flow import Flow
from queue_system.model.formats import split_member
from queue_system.model.keys import join_queue


def purge_flow(shard: Shard, queue_name: str, priority: str) -> Flow[int]:
    """Remove all items that wait in one queue, delayed ones included; return how many."""
    queue = join_queue(priority, queue_name)
    numbers = itertools.count(1)
    purge = partial(shard.commands.purge, queue, call_id=secrets.token_hex(8))
    removed: int
    removed = page = yield purge(number=next(numbers))
    while page:
        page = yield purge(number=next(numbers))
        removed += page
    cursor = "0"
    count = 1
    named = queue.encode()
    while True:
        cursor, members = yield shard.commands.delayed_page(cursor, count)
        count = next_page(members, count)
        doomed = [member for member in members if split_member(member)[0] == named]
        if doomed:
            removed += yield purge(doomed, number=next(numbers))
        if cursor == "0":
            return removed


def count_delayed_flow(shard: Shard, queues: Collection[str]) -> Flow[int]:
    """Count the operations of queues, `"high:mails"`, that are due later; it costs what removing them does."""
    named = {queue.encode() for queue in queues}
    found = 0
    cursor = "0"
    count = 1
    while True:
        cursor, members = yield shard.commands.delayed_page(cursor, count)
        count = next_page(members, count)
        found += sum(split_member(member)[0] in named for member in members)
        if cursor == "0":
            return found
