"""Servers that stop being the primary: the error says so and names the new one, and no connection to them is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker, ServerFullError, ServerUnreachableError
from tests.kit.logs import LineLogger
from tests.kit.servers import NO_REDIS, REDIS, OwnServer, StartServer
from tests.kit.waiting import eventually, wait_until

NAME = "shop"


@pytest.fixture(params=["valkey", "redis"])
def pair(request: pytest.FixtureRequest, start_server: StartServer) -> tuple[OwnServer, OwnServer]:
    """Two servers of one kind that know nothing of each other."""
    if request.param == "redis" and not REDIS.exists():
        pytest.skip(NO_REDIS)
    binary = REDIS if request.param == "redis" else None
    return start_server(binary=binary, tcp=True), start_server(binary=binary, tcp=True)


@contextlib.contextmanager
def configured(server: OwnServer) -> Iterator[QueueConfig]:
    config = QueueConfig(
        redis_url=f"{server.url}?client_name={NAME}", max_connection_retries=0, logger=LineLogger(), lease_seconds=2.0
    )
    try:
        yield config
    finally:
        config.close()


def demote(server: OwnServer, primary: OwnServer) -> None:
    with server.client() as client:
        client.replicaof("127.0.0.1", str(primary.port))
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", "it follows its primary")


def connections(server: OwnServer) -> int:
    with server.client() as client:
        return sum(found["name"] == NAME for found in client.client_list())


def test_a_call_to_a_replica_names_the_primary(pair: tuple[OwnServer, OwnServer]) -> None:
    old, new = pair
    demote(old, new)
    with configured(old) as config, pytest.raises(ServerUnreachableError) as caught:
        QueueManager(config).enqueue({}, "shop.pack")
    told = f"127.0.0.1:{old.port}/0 is a replica of 127.0.0.1:{new.port}: it takes no writes; connect to the primary"
    assert told in str(caught.value)


async def test_a_coroutine_is_told_the_same(pair: tuple[OwnServer, OwnServer]) -> None:
    old, new = pair
    demote(old, new)
    with configured(old) as config:
        with pytest.raises(ServerUnreachableError, match=rf"is a replica of 127\.0\.0\.1:{new.port}"):
            await QueueManager(config).aenqueue({}, "shop.pack")
        await config.aclose()


async def test_the_log_of_a_worker_names_the_primary_and_it_serves_once_this_one_is_promoted(
    pair: tuple[OwnServer, OwnServer],
) -> None:
    old, new = pair
    demote(old, new)
    with configured(old) as config:
        worker = QueueWorker(config)
        await worker.start()
        try:
            told = f"is a replica of 127.0.0.1:{new.port}"
            assert told in str(config.logger.lines)
            with old.client() as client:
                client.replicaof("NO", "ONE")
                await eventually(lambda: client.hlen("queue:workers"), "it has registered")
        finally:
            await worker.stop()


def test_whom_a_server_refuses_since_it_was_demoted_keeps_no_connection_to_it(
    pair: tuple[OwnServer, OwnServer],
) -> None:
    old, new = pair
    with configured(old) as config:
        wait = config.shard.commands.wait_for_wake([], 0.3)
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(config.shard.run, [wait] * 3))
        assert connections(old) == 3
        demote(old, new)
        with pytest.raises(ServerUnreachableError):
            QueueManager(config).enqueue({}, "shop.pack")
        wait_until(lambda: not connections(old), "all connections to it are closed")


async def test_coroutines_keep_none_either(pair: tuple[OwnServer, OwnServer]) -> None:
    old, new = pair
    with configured(old) as config:
        wait = config.shard.commands.wait_for_wake([], 0.3)
        await asyncio.gather(*[config.shard.arun(wait) for _ in range(3)])
        assert connections(old) == 3
        demote(old, new)
        with pytest.raises(ServerUnreachableError):
            await QueueManager(config).aenqueue({}, "shop.pack")
        await eventually(lambda: not connections(old), "all connections to it are closed")
        await config.aclose()


async def test_a_primary_that_has_lost_its_replicas_is_left_too(start_server: StartServer) -> None:
    """The others may have elected another one; a server without them refuses, and a new connection may find that."""
    server = start_server(tcp=True)
    with configured(server) as config:
        manager = QueueManager(config)
        manager.enqueue({}, "shop.pack")
        await manager.aenqueue({}, "shop.pack")
        assert connections(server) == 2
        with server.client() as client:
            client.config_set("min-replicas-to-write", 1)
        with pytest.raises(ServerFullError, match="NOREPLICAS"):
            manager.enqueue({}, "shop.pack")
        with pytest.raises(ServerFullError, match="NOREPLICAS"):
            await manager.aenqueue({}, "shop.pack")
        await eventually(lambda: not connections(server), "all connections to it are closed")
        await config.aclose()


def test_who_waits_at_a_server_that_is_demoted_is_told_to_ask_again(pair: tuple[OwnServer, OwnServer]) -> None:
    old, new = pair
    with configured(old) as config, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(config.transport.run, config.shard.commands.wait_for_wake([], 4.0))
        with old.client() as client:
            wait_until(lambda: client.info("clients")["blocked_clients"] == 1, "it waits")
        demote(old, new)
        with pytest.raises(ServerUnreachableError, match="instance state changed"):
            waiting.result()
        assert not connections(old)


def test_a_replica_without_its_primary_says_so(pair: tuple[OwnServer, OwnServer]) -> None:
    old, new = pair
    demote(old, new)
    with old.client() as client:
        client.config_set("replica-serve-stale-data", "no")
    new.kill()
    with configured(old) as config:
        with old.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "down", "the link is down")
        with pytest.raises(ServerUnreachableError, match=r"is a replica of .*, and its link to that one is down"):
            QueueManager(config).get_queue_status()


def test_a_client_of_the_application_is_told_the_same(pair: tuple[OwnServer, OwnServer]) -> None:
    """redis-py takes the code off the errors that it knows."""
    old, new = pair
    demote(old, new)
    with old.client() as client:
        client.config_set("replica-serve-stale-data", "no")
    new.kill()
    with redis.Redis(port=old.port) as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "down", "the link is down")
        config = QueueConfig(redis_client=client, max_connection_retries=0, logger=LineLogger())
        with pytest.raises(ServerUnreachableError, match="is a replica"):
            config._ensure_redis_sync()
        config.close()
