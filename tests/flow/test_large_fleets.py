"""Fleets of thousands: what is shown of them is read page by page, and is whole."""

from __future__ import annotations

import redis

from queue_system import QueueConfig, QueueManager
from queue_system.inspection.fleet import read_fleet
from queue_system.inspection.reading import read
from queue_system.inspection.status import pages_flow
from tests.kit.servers import StartServer


def test_lists_and_workers_are_read_side_by_side(config: QueueConfig, client: redis.Redis) -> None:
    """A manager's status and the fleet's stats hold all pages of both, however many more there are of one."""
    keys = config.shard.keys
    client.sadd(keys.registry, *(keys.queue("low", f"q{i}") for i in range(3_000)))
    client.hset(keys.workers, mapping={f"w{i}": "1:15000" for i in range(2_000)})
    client.hset(keys.inflight("w1999"), "7", "normal:a\nx")
    reading = read(config.shard, pages_flow(config.shard))
    assert (len(reading.page.lists), reading.page.workers, reading.page.running) == (3_000, 2_000, 1)
    assert reading.complete
    some = read(config.shard, pages_flow(config.shard, 1_000))
    assert 1_000 <= len(some.page.lists) < 3_000
    assert (some.complete, some.page.workers, some.page.running) == (False, 2_000, 1)
    assert QueueManager(config).get_queue_status()[f"{keys.prefix}running"] == 1
    stats = read_fleet(config)
    assert (stats.workers, stats.running, stats.complete) == (2_000, 1, False)


def test_who_may_not_scan_reads_the_workers_all_the_same(start_server: StartServer) -> None:
    """As a user that was set up for an earlier release."""
    server = start_server()
    with server.client() as admin:
        admin.hset("queue:workers", mapping={f"w{i}": "1:15000" for i in range(1_000)})
        admin.hset("queue:inflight:w1", "7", "normal:a\nx")
        admin.acl_setuser("old", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-hscan"])
    config = QueueConfig(redis_url=f"unix://old:x@{server.socket_path}")
    stats = read_fleet(config)
    config.close()
    assert (stats.workers, stats.running) == (1_000, 1)
