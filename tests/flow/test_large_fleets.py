"""Fleets of thousands: what is shown of them is read in pages and is whole, and few do what is done for all."""

from __future__ import annotations

import time

import redis

from queue_system import QueueConfig, QueueManager
from queue_system.inspection.fleet import read_fleet
from queue_system.inspection.reading import read
from queue_system.inspection.status import pages_flow
from queue_system.maintenance.discovery import Discovery
from queue_system.maintenance.reclaimer import Reclaimer
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import wait_until


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


def sweeps(server: OwnServer, config: QueueConfig, services: list[Discovery]) -> int:
    """How many sweeps are asked for in one round of all."""
    with server.client() as client:
        before = int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])
        for service in services:
            service.perform()
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"]) - before


def resting(config: QueueConfig, fleet: int) -> Reclaimer:
    """A reclaimer that rests in a fleet of that size."""
    while True:
        reclaimer = Reclaimer(config, config.shard, lambda: "own", lambda: 0)
        if reclaimer.decide(time.monotonic() + 1_000_000.0, fleet):
            return reclaimer


def test_of_many_workers_few_ask_for_a_sweep_and_a_foreign_push_is_found(start_server: StartServer) -> None:
    """Those who watch the fleet, here one, and about eight of those who rest."""
    server = start_server()
    config = QueueConfig(redis_url=server.url, logger=LineLogger(), lease_seconds=30.0)
    reclaimers = [resting(config, 300) for _ in range(299)]
    services = [Discovery(config, config.shard, sits_out=each.sits_out) for each in reclaimers]
    for service in services:  # what each does once
        service.perform()
    watching = Discovery(config, config.shard)
    watching.perform()
    with server.client() as client:
        assert sweeps(server, config, services) < 60
        client.sadd(config.keys.registry, config.keys.queue("low", "foreign"))
        client.lpush(config.keys.queue("low", "foreign"), "x")
        wait_until(
            lambda: watching.perform() and client.zcard(f"{config.queue_prefix}ready:low") == 1,
            "it is found by who watches",
        )
    config.close()


def test_if_all_who_watch_die_those_who_rest_sweep_on(start_server: StartServer) -> None:
    """Before anybody has noticed the death: rounds are drawn anew each time."""
    server = start_server()
    config = QueueConfig(redis_url=server.url, logger=LineLogger(), lease_seconds=3600.0)
    services = [
        Discovery(config, config.shard, sits_out=resting(config, 100).sits_out) for _ in range(92)
    ]  # eight are dead
    with server.client() as client:
        client.sadd(config.keys.registry, config.keys.queue("low", "foreign"))
        client.lpush(config.keys.queue("low", "foreign"), "x")
        rounds = 0
        while not client.zcard(f"{config.queue_prefix}ready:low"):
            rounds += 1
            for service in services:
                service.perform()
        assert rounds <= 3
    config.close()


def test_a_lone_survivor_of_a_large_fleet_sweeps_once_it_sees_that_nobody_watches(config: QueueConfig) -> None:
    survivor = resting(config, 10**9)
    assert survivor.sits_out()
    wait_until(lambda: survivor.perform() and not survivor.rests, "it has begun to watch")
    assert not survivor.sits_out()
