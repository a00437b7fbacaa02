"""Clients as a source of settings: of redis-py and of valkey-py, blocking or not, of one server or of sentinels."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.asyncio as aioredis
import redis.asyncio.sentinel
import redis.sentinel
import valkey
import valkey.asyncio
import valkey.asyncio.sentinel
import valkey.sentinel

from queue_system import QueueConfig
from queue_system.broker.clients import check_client
from queue_system.errors import InvalidInputError

SENTINELS = [("s1", 26379), ("s2", 5000)]


def settings_of(client: Any) -> dict[str, Any]:
    settings: dict[str, Any] = check_client(client).connection_pool.connection_kwargs
    return settings


class Provider(redis.CredentialProvider):
    def get_credentials(self) -> tuple[str, str]:
        return "u", "p"


def test_a_blocking_client_of_redis_py_is_kept() -> None:
    client = redis.Redis()
    assert QueueConfig(redis_client=client).redis_client is client


@pytest.mark.parametrize("kind", [aioredis.Redis, valkey.Valkey, valkey.asyncio.Valkey])
def test_settings_of_other_clients_are_read(kind: Any) -> None:
    provider = Provider()
    settings = settings_of(
        kind(host="h", port=7, db=3, client_name="shop", socket_timeout=2.5, credential_provider=provider)
    )
    expected = {"host": "h", "port": 7, "db": 3, "client_name": "shop", "socket_timeout": 2.5}
    assert expected.items() <= settings.items()
    assert settings["credential_provider"] is provider


@pytest.mark.parametrize(
    "client, address",
    [
        (aioredis.Redis(unix_socket_path="/tmp/s"), "unix:///tmp/s"),
        (valkey.Valkey(unix_socket_path="/tmp/s"), "unix:///tmp/s"),
        (valkey.asyncio.Valkey.from_url("valkeys://u:p@h:7/2"), "redis://h:7/2"),
        (valkey.Valkey.from_url("valkey://h"), "redis://h:6379/0"),
    ],
)
def test_other_clients_lead_where_they_did(client: Any, address: str) -> None:
    assert QueueConfig(redis_client=client).address == address


def test_tls_of_another_client_stays_tls() -> None:
    pool = check_client(valkey.Valkey(ssl=True, ssl_ca_certs="/ca")).connection_pool
    assert pool.connection_class is redis.SSLConnection
    assert pool.connection_kwargs["ssl_ca_certs"] == "/ca"


@pytest.mark.parametrize(
    "module",
    [redis.sentinel, redis.asyncio.sentinel, valkey.sentinel, valkey.asyncio.sentinel],
    ids=lambda m: m.__name__,
)
@pytest.mark.parametrize("ssl", [False, True])
def test_sentinels_of_each_library_are_read(module: Any, ssl: bool) -> None:
    service = module.Sentinel(SENTINELS, sentinel_kwargs={"password": "s"}, ssl=ssl, password="p", db=2)
    client = check_client(service.master_for("main"))
    assert QueueConfig(redis_client=service.master_for("main")).address == "redis+sentinel://s1:26379,s2:5000/main/2"
    pool: Any = client.connection_pool
    assert pool.connection_kwargs["password"] == "p"
    assert pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs["password"] == "s"
    assert ("SSL" in pool.connection_class.__name__) is ssl


def test_a_client_of_replicas_is_refused() -> None:
    client = redis.sentinel.Sentinel(SENTINELS).slave_for("main")
    with pytest.raises(InvalidInputError, match=r"expected a client of the primary, got one of replicas; use Sentinel"):
        QueueConfig(redis_client=client)


@pytest.mark.parametrize("kind", [redis.cluster.RedisCluster, aioredis.RedisCluster, valkey.asyncio.ValkeyCluster])
def test_a_client_of_a_cluster_is_refused_with_what_to_do_until_then(kind: Any) -> None:
    client = object.__new__(kind)  # a blocking one would connect
    with pytest.raises(
        InvalidInputError, match=r"got .*Cluster; clusters are not supported by this release yet"
    ) as caught:
        QueueConfig(redis_client=client)
    assert caught.value.field == "redis_client"
