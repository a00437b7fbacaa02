"""A worker warns, once, of a server that may lose operations; it starts and works all the same."""

from __future__ import annotations

from typing import Any

import pytest

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.broker.abilities import many_writer
from queue_system.broker.protocol import Command
from queue_system.broker.server_check import findings, read_server
from queue_system.maintenance.discovery import Discovery
from tests.kit.configs import MakeConfig
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import StartServer
from tests.kit.waiting import eventually
from tests.kit.workers import running

WARNING = "the server is not safe"


async def test_a_worker_on_an_evicting_server_without_persistence_warns_once_of_each(
    start_server: StartServer, make_config: MakeConfig, inbox: Inbox
) -> None:
    server = start_server(maxmemory="100mb", maxmemory_policy="allkeys-lru", appendonly="no")
    config = make_config(redis_url=server.url)
    log: LineLogger = config.logger
    queue = QueueManager(config)

    def swept() -> Any:
        return client.get(f"{config.queue_prefix}swept")

    with server.client() as client:
        async with running(QueueWorker(config)):
            queue.enqueue({"n": 1}, inbox.put)
            assert await inbox.next() == {"n": 1}
            await eventually(lambda: len(log.of(WARNING)) == 2, "both warnings are logged")
            last = swept()
            await eventually(lambda: swept() != last, "the server is swept again")
    assert [line["kind"] for line in log.of(WARNING)] == ["eviction", "persistence"]
    assert "allkeys-lru" in log.of(WARNING)[0]["problem"]
    assert {line.level for line in log.lines if line.message == WARNING} == {"warning"}


def test_the_server_that_the_package_brings_gives_no_finding(config: QueueConfig) -> None:
    info, settings = read_server(config.transport.run)
    assert findings(info, settings) == []
    assert {"redis_version", "aof_enabled", "maxmemory_policy"} <= info.keys()


def test_a_worker_learns_whether_the_server_writes_many_keys_at_once(
    start_server: StartServer, make_config: MakeConfig
) -> None:
    """And whether its user may: else each settlement would leave an entry in the server's log of refusals."""
    server = start_server()
    config = make_config(redis_url=server.url)
    Discovery(config, config.shard).perform()
    assert config.commands.write_many == "MSETEX"
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "plain", "on", "nopass", "~*", "+@all", "-msetex")
    other = make_config(
        redis_url=server.url.replace("redis://", "redis://plain:x@").replace("unix://", "unix://plain:x@")
    )
    Discovery(other, other.shard).perform()
    assert other.commands.write_many == ""


@pytest.mark.parametrize(
    "info, known",
    [
        ({"valkey_version": "9.1.0", "redis_version": "7.2.4"}, "MSETEX"),
        ({"valkey_version": "9.0.4", "redis_version": "7.2.4"}, ""),
        ({"redis_version": "8.4.0"}, "MSETEX"),
        ({"redis_version": "8.2.9"}, ""),
        ({"redis_version": "10.0.1"}, "MSETEX"),
        ({"redis_version": "8.4.0", "dragonfly_version": "df-1.0"}, ""),
        ({"redis_version": "unstable"}, ""),
        ({"redis_version": "8.4.0", "maxmemory": "0", "used_memory": "9"}, "MSETEX"),
        ({"redis_version": "8.4.0", "maxmemory": "9", "used_memory": "8"}, "MSETEX"),
        ({"redis_version": "8.4.0", "maxmemory": "9", "used_memory": "9"}, ""),
        ({}, ""),
    ],
)
def test_only_versions_that_may_have_the_command_are_asked(info: dict[str, str], known: str) -> None:
    asked: list[str] = []

    def run(command: Command[bool]) -> bool:
        asked.append(command.name)
        return True

    assert many_writer(info, "queue:", run) == known
    assert len(asked) == bool(known)


def test_a_server_that_is_away_is_looked_at_when_it_is_back(start_server: StartServer, make_config: MakeConfig) -> None:
    server = start_server(maxmemory_policy="volatile-lru")
    config = make_config(redis_url=server.url, max_connection_retries=0, connection_timeout=1.0)
    discovery = Discovery(config, config.shard)
    server.stop()
    with pytest.raises(ConnectionError):
        discovery.perform()
    server.start()
    discovery.perform()
    discovery.perform()
    assert [line["kind"] for line in config.logger.of(WARNING)] == ["eviction"]
