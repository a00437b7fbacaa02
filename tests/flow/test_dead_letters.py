"""Dead letters are kept for backup_ttl, then dropped, counted and logged."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from queue_system import QueueConfig, QueueManager
from queue_system.maintenance.retention import Retention
from tests.kit.contents import documents

DAY_S = 86_400.0


def now_ms() -> int:
    return int(time.time() * 1000)


def push_letters(client: redis.Redis, key: str, *ages_s: float) -> None:
    """Push dead letters of these ages, the oldest first, as they come to be there."""
    for age_s in ages_s:
        client.lpush(key, json.dumps({"operation_id": f"{age_s:g}", "failed_at": time.time() - age_s}))


def test_a_letter_without_a_time_is_kept_and_keeps_no_other(config: QueueConfig, client: redis.Redis) -> None:
    """Foreign bytes in the list are nobody's to drop."""
    foreign = [b"garbage", b"[1]", b'{"failed_at":"soon"}', b"{}"]
    push_letters(client, config.failures_queue, 30 * DAY_S)
    client.lpush(config.failures_queue, *foreign)
    push_letters(client, config.failures_queue, 20 * DAY_S, 0)
    assert Retention(config, config.shard, now_ms).trim() == 2
    left: Any = client.lrange(config.failures_queue, 0, -1)
    assert left[1:] == foreign[::-1]


def test_many_letters_without_a_time_at_the_old_end_keep_no_other(config: QueueConfig, client: redis.Redis) -> None:
    client.rpush(config.failures_queue, *[b"garbage %d" % n for n in range(250)])
    push_letters(client, config.failures_queue, 30 * DAY_S, 20 * DAY_S, 0)
    assert Retention(config, config.shard, now_ms).trim() == 2
    assert client.llen(config.failures_queue) == 251


def test_workers_that_trim_at_the_same_time_drop_each_old_letter_once(config: QueueConfig, client: redis.Redis) -> None:
    push_letters(client, config.failures_queue, *[30 * DAY_S + n for n in range(2000)], 1.0)
    with ThreadPoolExecutor(4) as pool:
        dropped = list(pool.map(lambda _: Retention(config, config.shard, now_ms).trim(), range(4)))
    assert sum(dropped) == 2000
    assert [each["operation_id"] for each in documents(client, config.failures_queue)] == ["1"]
    assert QueueManager(config).get_queue_status()["metrics"]["dead_letters_dropped"] == 2000


def test_a_round_of_retention_trims_and_the_first_one_waits(config: QueueConfig, client: redis.Redis) -> None:
    push_letters(client, config.failures_queue, 30 * DAY_S)
    retention = Retention(config, config.shard, now_ms)
    assert retention.first_wait_s == retention.perform() == 60.0
    assert documents(client, config.failures_queue) == []


def test_stopped_retention_does_nothing_more(config: QueueConfig, client: redis.Redis) -> None:
    push_letters(client, config.failures_queue, 30 * DAY_S)
    retention = Retention(config, config.shard, now_ms)
    retention.stop()
    assert retention.trim() == 0
