"""Replicas, sentinels and clusters as the server: each command says what it is and what to write instead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from queue_system import QueueConfig, QueueManager, QueueWorker, UnsupportedServerError
from tests.cli.support import RunCli
from tests.kit.logs import LineLogger
from tests.kit.servers import NO_REDIS, REDIS, OwnServer, StartServer
from tests.kit.topologies import SERVICE, OwnCluster, OwnSentinel
from tests.kit.waiting import wait_until

TAGGED = "{queue}:"
COMMANDS = [("doctor",), ("status",), ("enqueue", "shop.work", "{}"), ("purge", "work", "--yes")]


def checks(cli: RunCli, url: str, *arguments: str) -> dict[str, dict[str, Any]]:
    answer = cli("doctor", "--json", "--url", url, "--prefix", TAGGED, *arguments)
    assert answer.out, answer.err
    return {check["name"]: check for check in answer.document["checks"]}


@pytest.fixture
def replica(start_server: StartServer) -> tuple[OwnServer, OwnServer]:
    """A replica and its primary."""
    primary = start_server(tcp=True)
    replica = start_server(tcp=True)
    with replica.client() as client:
        client.replicaof("127.0.0.1", str(primary.port))
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", "it follows")
    return replica, primary


@pytest.fixture(scope="module", params=["valkey", "redis"])
def cluster(request: pytest.FixtureRequest) -> Iterator[OwnCluster]:
    if request.param == "redis" and not REDIS.exists():
        pytest.skip(NO_REDIS)
    with OwnCluster(primaries=2, replicas=1, binary=REDIS if request.param == "redis" else None) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def watched() -> Iterator[OwnSentinel]:
    with OwnSentinel(replicas=1, sentinels=2) as servers:
        yield servers


def owner(cluster: OwnCluster) -> Any:
    slot = cluster.nodes[0].ask("CLUSTER", "KEYSLOT", TAGGED)
    return cluster.nodes[0] if slot < 8192 else cluster.nodes[1]


def test_doctor_fails_on_a_replica_and_names_the_primary(replica: tuple[OwnServer, OwnServer], cli: RunCli) -> None:
    follower, primary = replica
    answer = cli("doctor", "--url", follower.url)
    assert answer.code == 1
    assert f"this server is a replica of 127.0.0.1:{primary.port}: it takes no writes" in answer.out.replace("\n", " ")


def test_status_of_a_replica_says_that_it_may_be_old(replica: tuple[OwnServer, OwnServer], cli: RunCli) -> None:
    """As text, as a document and by Python, in both forms."""
    follower, primary = replica
    address = f"127.0.0.1:{primary.port}"
    text = " ".join(cli("status", "--url", follower.url).out.split())
    assert f"this server is a replica of {address}: what it shows may be old; connect to the primary" in text
    assert cli("status", "--json", "--url", follower.url).document["replica_of"] == address
    assert "replica_of" not in cli("status", "--json", "--url", primary.url).document
    with contextlib.closing(QueueConfig(redis_url=follower.url)) as config:
        manager = QueueManager(config)
        assert manager.get_queue_status()["replica_of"] == address
        assert asyncio.run(manager.aget_queue_status())["replica_of"] == address


def test_enqueue_on_a_replica_does_not_ask_whether_it_is_up(replica: tuple[OwnServer, OwnServer], cli: RunCli) -> None:
    follower, primary = replica
    answer = cli("enqueue", "--url", follower.url, "shop.work", "{}")
    assert answer.code == 3
    assert f"is a replica of 127.0.0.1:{primary.port}: it takes no writes; connect to the primary" in answer.err
    assert "is it up?" not in answer.err


def test_doctor_tells_of_replicas_and_of_the_settings_that_bound_what_a_failover_loses(
    replica: tuple[OwnServer, OwnServer], cli: RunCli
) -> None:
    _, primary = replica
    found = checks(cli, primary.url)["replication"]
    assert found["level"] == "warn"
    assert "the primary of 1 replica, at most" in found["sentence"]
    assert "set min-replicas-to-write 1 and min-replicas-max-lag 10" in found["advice"]
    with primary.client() as client:
        client.config_set("min-replicas-to-write", 1)
        client.config_set("min-replicas-max-lag", 60)
        assert "taking writes for 60 s" in checks(cli, primary.url)["replication"]["sentence"]
        client.config_set("min-replicas-max-lag", 10)
        assert checks(cli, primary.url)["replication"]["level"] == "ok"
        client.config_set("appendonly", "no")
        assert "no append-only file" in checks(cli, primary.url)["replication"]["sentence"]


def test_doctor_tells_of_the_sentinels_of_a_primary_and_of_their_quorum(watched: OwnSentinel, cli: RunCli) -> None:
    found = checks(cli, watched.primary.url)["replication"]
    few = "watched by 2 sentinels; the loss of one sentinel may leave no majority"
    assert f"{few}; service {SERVICE}" in found["sentence"]
    assert (found["details"]["quorum"], found["details"]["known_sentinels"], found["details"]["sentinels"]) == (2, 2, 2)
    assert found["level"] == "warn"
    for sentinel in watched.sentinels:
        sentinel.ask("SENTINEL", "SET", SERVICE, "quorum", 5)
    found = checks(cli, watched.primary.url)["replication"]
    for sentinel in watched.sentinels:
        sentinel.ask("SENTINEL", "SET", SERVICE, "quorum", 2)
    assert found["level"] == "fail"
    assert "could not agree on a failover" in found["sentence"]


@pytest.mark.parametrize("words", COMMANDS)
def test_the_port_of_a_sentinel_is_told_with_what_to_write(
    watched: OwnSentinel, cli: RunCli, words: tuple[str, ...]
) -> None:
    answer = cli(*words, "--url", watched.sentinels[0].url)
    assert answer.code == 4
    assert "is a sentinel, which holds no queues" in answer.err
    assert "redis+sentinel://HOST:26379/SERVICE" in answer.err


@pytest.mark.parametrize("words", COMMANDS)
def test_a_node_of_a_cluster_is_refused_without_a_hash_tag(
    cluster: OwnCluster, cli: RunCli, words: tuple[str, ...]
) -> None:
    answer = cli(*words, "--url", cluster.nodes[0].url, "--prefix", "queue:")
    assert answer.code == 4
    assert "is a node of a cluster" in answer.err
    assert "redis+cluster://" in answer.err
    assert "queue_prefix='{queue}:'" in answer.err


async def test_so_it_is_for_workers_and_coroutines(cluster: OwnCluster) -> None:
    config = QueueConfig(redis_url=cluster.nodes[0].url, logger=LineLogger())
    worker = QueueWorker(config)
    with pytest.raises(UnsupportedServerError, match=r"redis\+cluster://"):
        await worker.start()
    assert not worker.running
    with pytest.raises(UnsupportedServerError, match=r"redis\+cluster://"):
        await QueueManager(config).aenqueue({}, "shop.work")
    await config.aclose()
    config.close()


async def test_a_worker_does_not_start_at_a_sentinel(watched: OwnSentinel) -> None:
    config = QueueConfig(redis_url=watched.sentinels[0].url, logger=LineLogger())
    with pytest.raises(UnsupportedServerError, match="sentinel"):
        await QueueWorker(config).start()
    config.close()


def test_a_tagged_prefix_works_on_the_node_that_serves_its_slot(cluster: OwnCluster, cli: RunCli) -> None:
    node = owner(cluster)
    assert cli("enqueue", "--url", node.url, "--prefix", TAGGED, "shop.work", "{}").code == 0
    assert cli("status", "--json", "--url", node.url, "--prefix", TAGGED).document["waiting"] >= 1
    found = checks(cli, node.url)["cluster"]
    assert "a cluster of 2 primary nodes and 1 replica" in found["sentence"]
    assert f"lies in slot {found['details']['slot']} on 127.0.0.1:{node.port}" in found["sentence"]
    assert "set cluster-require-full-coverage no on all nodes" in found["advice"]
    assert found["details"]["cluster_state"] == "ok"


def test_another_node_names_the_one_that_serves_it(cluster: OwnCluster, cli: RunCli) -> None:
    node = owner(cluster)
    other = next(each for each in cluster.primaries if each is not node)
    answer = cli("status", "--url", other.url, "--prefix", TAGGED)
    assert answer.code == 3
    assert f"lies on 127.0.0.1:{node.port}; connect to that node" in answer.err
    assert "is it up?" not in answer.err


def test_a_cluster_that_lost_a_node_fails(cli: RunCli) -> None:
    with OwnCluster(primaries=3, replicas=0, cluster_require_full_coverage="no") as nodes:
        slot = nodes.nodes[0].ask("CLUSTER", "KEYSLOT", TAGGED)
        node = nodes.nodes[slot * 3 // 16384]
        lost = next(each for each in nodes.nodes if each is not node)
        lost.kill()
        wait_until(lambda: node.fields("CLUSTER", "INFO")["cluster_slots_ok"] != "16384", "the loss is noticed")
        found = checks(cli, node.url)["cluster"]
    assert found["level"] == "fail"
    assert f"not reached: 127.0.0.1:{lost.port}" in found["sentence"]
    assert "nobody could take over that node" in found["sentence"]


def test_a_key_named_like_the_prefix_is_found(cli: RunCli, start_server: StartServer) -> None:
    server = start_server()
    with server.client() as client:
        client.set(TAGGED, "x")
    found = checks(cli, server.url)["orphans"]
    assert found["level"] == "fail"
    assert f"a key is named like the prefix, {TAGGED}" in found["sentence"]
