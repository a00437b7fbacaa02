"""URLs and settings: which are accepted, and what of a user's client our own connections take over."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.asyncio as aioredis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from queue_system import QueueConfig
from queue_system.broker.connecting import UnixConnection
from queue_system.broker.connection import Endpoint, check_version
from queue_system.broker.urls import SCHEMES, check_url, make_client
from queue_system.errors import InvalidInputError, UnsupportedServerError


def endpoint(client: redis.Redis, timeout: float = 3.0) -> Endpoint:
    return Endpoint(client.connection_pool, timeout)


@pytest.mark.parametrize(
    "url, checked",
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://user:secret@host/1?ssl_cert_reqs=required", "rediss://user:secret@host/1?ssl_cert_reqs=required"),
        ("unix:///tmp/s?db=2", "unix:///tmp/s?db=2"),
        ("valkey://host", "redis://host"),
        ("valkeys://host", "rediss://host"),
        ("embedded:///srv/data", "embedded:///srv/data"),
        ("redis://h?socket_timeout=2&socket_keepalive=yes&client_name=a", None),
    ],
)
def test_a_usable_url_is_returned_in_the_schemes_of_the_client(url: str, checked: str | None) -> None:
    assert check_url(url) == (checked or url)


@pytest.mark.parametrize(
    "url",
    [
        None, 5, b"redis://host", "", "host:6379", "http://host", "redis//host", "redis://host:99999", "redis://host:x",
        "redis://[::1", "redis://host?retry_on_timeout=yes", "redis://host?db=0&unknown=", "rediss://h?ssl_cert_reqs=none",
        "rediss://h?ssl_cert_reqs=NONE",
    ],
)  # fmt: skip
def test_an_unusable_url_is_refused_and_its_field_named(url: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_url(url)
    assert caught.value.field == "redis_url"


@pytest.mark.parametrize(
    "url",
    ["redis://h?db=abc", "redis://h?socket_timeout=abc", "REDIS://h", "unix:/tmp/s", "redis:host", "redis://h/abc"],
)
def test_a_url_that_the_client_cannot_read_is_refused_when_it_is_given(url: str) -> None:
    """Otherwise the first enqueue raises an untyped error, or goes to another database than was meant."""
    with pytest.raises(InvalidInputError) as caught:
        make_client(check_url(url), 1.0)
    assert caught.value.field == "redis_url"


def test_certificate_checks_cannot_be_switched_off_in_other_spellings() -> None:
    with pytest.raises(InvalidInputError):
        check_url("rediss://h?ssl_cert_reqs=%6eone")


@pytest.mark.parametrize("url", ["http://u:hunter2@h", "redis://u:hunter2@h:x", "redis://u:hunter2@h?bad=1", "hunter2"])
def test_no_password_is_in_the_error_of_a_url(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost:6379/0", "localhost", "redi://localhost"])
def test_what_is_no_url_of_a_server_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(
        InvalidInputError,
        match=r"expected a URL whose scheme is one of redis, rediss, .*; for example redis://localhost:6379/0$",
    ):
        check_url(url)


def test_every_scheme_is_accepted() -> None:
    for scheme in SCHEMES:
        check_url(f"{scheme}:///1")


def test_a_client_has_the_limits_it_was_made_with_and_does_not_retry_by_itself() -> None:
    kwargs = make_client("redis://u:p@host:1/3", 2.5).connection_pool.connection_kwargs
    assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"], kwargs["db"]) == (2.5, 2.5, 3)
    assert kwargs["retry"].get_retries() == 0


@pytest.mark.parametrize(
    "client, address",
    [
        (redis.Redis(host="h", port=7, db=2, username="u", password="hunter2"), "redis://h:7/2"),
        (redis.Redis.from_url("redis://:hunter2@h"), "redis://h:6379/0"),
        (redis.Redis(unix_socket_path="/tmp/s", password="hunter2"), "unix:///tmp/s"),
    ],
)
def test_an_address_names_the_server_without_credentials(client: redis.Redis, address: str) -> None:
    assert endpoint(client).address == address


def test_settings_of_the_client_that_would_change_replies_or_repeat_commands_are_dropped() -> None:
    client = redis.Redis(
        decode_responses=True, retry=Retry(ExponentialBackoff(), 9), health_check_interval=5, protocol=3, db=4,
        socket_keepalive=True, client_name="shop", username="u", password="p",
    )  # fmt: skip
    settings = endpoint(client)._settings(redis.Connection)
    assert not {"decode_responses", "retry", "health_check_interval", "connection_pool"} & settings.keys()
    assert settings["protocol"] == 2
    assert {name: settings[name] for name in ("db", "client_name", "username", "password", "socket_keepalive")} == {
        "db": 4, "client_name": "shop", "username": "u", "password": "p", "socket_keepalive": True,
    }  # fmt: skip


def test_limits_of_the_client_win_over_those_of_the_configuration() -> None:
    settings = endpoint(redis.Redis(socket_timeout=1.5, socket_connect_timeout=None), 3.0)._settings(redis.Connection)
    assert (settings["socket_timeout"], settings["socket_connect_timeout"]) == (1.5, 3.0)


@pytest.mark.parametrize("own, limit_s", [(1.5, 1.5), (9, 3.0), (None, 3.0)])
def test_what_blocks_must_end_before_the_shorter_of_both_limits(own: float | None, limit_s: float) -> None:
    """The blocking connection gives up after the client's limit, the asyncio one after the configuration's."""
    assert endpoint(redis.Redis(socket_timeout=own), 3.0).read_limit_s == limit_s


@pytest.mark.parametrize(
    "client, kind",
    [
        (redis.Redis(socket_connect_timeout=None), aioredis.Connection),
        (redis.Redis(unix_socket_path="/tmp/s"), aioredis.UnixDomainSocketConnection),
        (redis.Redis.from_url("rediss://h"), aioredis.SSLConnection),
    ],
)  # fmt: skip
def test_the_asyncio_connection_is_of_the_same_kind_and_leaves_the_time_to_the_transport(
    client: redis.Redis, kind: type
) -> None:
    prepared: list[bool] = []
    connection: Any = Endpoint(client.connection_pool, 3.0, lambda: prepared.append(True))._aio_connection()
    assert connection.socket_timeout is None
    assert connection.socket_connect_timeout == 3.0
    assert connection.retry.get_retries() == 0
    assert prepared == [True]
    assert type(connection) is kind


def test_a_connection_uses_the_settings_and_is_prepared_first(server: Any) -> None:
    prepared: list[bool] = []
    with server.client(decode_responses=True, db=3) as client:
        connection = Endpoint(client.connection_pool, 3.0, lambda: prepared.append(True)).connect()
    connection.opened.send_command("CLIENT", "INFO")
    reply = connection.opened.read_response()
    connection.close()
    assert isinstance(reply, bytes)
    assert b" db=3 " in reply
    assert prepared == [True]


@pytest.mark.parametrize("version", ["6.2", "6.2.0", "6.2.14", "7.0.0", "7.2.4", "8.0.1", "255.255.255", "", "unknown"])
def test_a_supported_or_unknown_version_passes(version: str) -> None:
    check_version({"redis_version": version})
    check_version({})


@pytest.mark.parametrize("version", ["6.0.16", "5.0.14", "2.8", "6", "6.1.240"])
def test_an_old_version_is_refused_with_what_is_needed(version: str) -> None:
    with pytest.raises(UnsupportedServerError, match=rf"version {version}; Redis 6\.2"):
        check_version({"redis_version": version})


class OwnConnection(redis.Connection):
    """A user's own, such as one through a tunnel."""


def clients_of_their_own() -> dict[str, Any]:
    """Clients whose calls and coroutines would not reach the same server, and what is told of each."""
    fakeredis, valkey = pytest.importorskip("fakeredis"), pytest.importorskip("valkey")
    return {
        "fakeredis._clients._sync.FakeRedisConnection": fakeredis.FakeRedis(),
        "OwnConnection": redis.Redis(connection_pool=redis.ConnectionPool(connection_class=OwnConnection)),
        "redis_connect_func": redis.Redis(
            connection_pool=redis.ConnectionPool(redis_connect_func=lambda connection: connection.on_connect())
        ),
        "ssl_validate_ocsp": redis.Redis(ssl=True, ssl_validate_ocsp=True),
        "valkey_connect_func": valkey.Valkey(
            connection_pool=valkey.ConnectionPool(valkey_connect_func=lambda connection: connection.on_connect())
        ),
        "builtins.str": "redis://h",
    }


def test_a_client_that_coroutines_could_not_mirror_is_refused_with_what_to_use() -> None:
    for told, client in clients_of_their_own().items():
        with pytest.raises(InvalidInputError, match="give redis_url") as caught:
            QueueConfig(redis_client=client)
        assert caught.value.field == "redis_client"
        assert told in str(caught.value)


def test_a_unix_socket_that_cannot_be_reached_in_time_raises_what_a_caller_handles() -> None:
    """redis-py notes the host and the port of what failed, which a connection of this kind has not."""
    kind: Any = UnixConnection
    connection = kind(path="/nowhere/s", retry=Retry(NoBackoff(), 0))
    connection.deadline = 0.0
    with pytest.raises(redis.TimeoutError):
        connection.connect()
