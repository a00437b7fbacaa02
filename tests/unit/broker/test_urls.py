"""URLs of sentinels: what each part means, and for each malformed form an error that names field and way out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_system import QueueConfig
from queue_system.broker.urls import CLUSTER_SCHEMES, SENTINEL_SCHEMES, read_url
from queue_system.errors import InvalidInputError

SECRET = "c4n4ry"
EXAMPLE = r"redis\+sentinel://host1:26379,host2:26379/mymaster/0"


def settings_of(url: str) -> dict[str, Any]:
    """What a connection to the primary gets."""
    settings: dict[str, Any] = read_url(url).client(2.0).connection_pool.connection_kwargs
    return settings


def sentinel_settings_of(url: str) -> dict[str, Any]:
    """What a connection to the first sentinel gets."""
    pool: Any = read_url(url).client(2.0).connection_pool
    settings: dict[str, Any] = pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs
    return settings


@pytest.mark.parametrize("scheme", SENTINEL_SCHEMES)
def test_each_scheme_names_sentinels_and_service_and_encrypts_if_it_says_so(scheme: str) -> None:
    servers = read_url(f"{scheme}://a,b:26380/main")
    assert servers.sentinels == (("a", 26379), ("b", 26380))
    assert servers.service == "main"
    kind = servers.client(1.0).connection_pool.connection_class.__name__
    assert ("SSL" in kind) is (scheme in {"rediss+sentinel", "valkeys+sentinel"})


def test_addresses_of_both_kinds_and_names_are_hosts() -> None:
    servers = read_url("redis+sentinel://[::1]:5000,10.0.0.7,[2001:db8::2],s-1.example_2/m.y-m_1/")
    assert servers.sentinels == (("::1", 5000), ("10.0.0.7", 26379), ("2001:db8::2", 26379), ("s-1.example_2", 26379))
    assert servers.service == "m.y-m_1"


def test_a_sentinel_that_is_named_twice_is_asked_once() -> None:
    assert read_url("redis+sentinel://a,b,a:26379/main").sentinels == (("a", 26379), ("b", 26379))


def test_user_password_database_and_options_count_for_the_servers_only() -> None:
    url = "valkey+sentinel://u:p%40w@a/main/3?client_name=shop&socket_timeout=1.5&sentinel_password=s%2Fp&sentinel_username=v"
    chosen = {"username": "u", "password": "p@w", "db": 3, "client_name": "shop", "socket_timeout": 1.5}
    assert chosen.items() <= settings_of(url).items()
    asked = sentinel_settings_of(url)
    assert (asked["username"], asked["password"], asked["db"]) == ("v", "s/p", 0)
    assert asked["client_name"] is None


def test_limits_are_those_of_the_configuration_where_the_url_names_none() -> None:
    settings = settings_of("redis+sentinel://a/main?socket_timeout=7")
    assert (settings["socket_timeout"], settings["socket_connect_timeout"]) == (7, 2.0)


@pytest.mark.parametrize(
    "url, servers, sentinels",
    [
        ("rediss+sentinel://a/m?ssl_ca_certs=/ca", "/ca", "/ca"),
        ("rediss+sentinel://a/m?ssl_ca_certs=/ca&sentinel_ssl=no", "/ca", None),
        ("redis+sentinel://a/m?ssl_ca_certs=/ca&sentinel_ssl=True", None, "/ca"),
    ],
)
def test_sentinels_are_encrypted_as_the_servers_are_unless_it_is_said(
    url: str, servers: str | None, sentinels: str | None
) -> None:
    assert settings_of(url).get("ssl_ca_certs") == servers
    assert sentinel_settings_of(url).get("ssl_ca_certs") == sentinels


def test_the_address_names_sentinels_and_service_without_credentials() -> None:
    config = QueueConfig(redis_url=f"redis+sentinel://u:{SECRET}@a,[::1]:7/main/2?sentinel_password={SECRET}")
    assert config.address == "redis+sentinel://a:26379,[::1]:7/main/2"
    assert SECRET not in f"{config!r} {read_url(config.redis_url)!r}"


@pytest.mark.parametrize(
    "url, told",
    [
        ("redis+sentinel://a,b", f"the name that the sentinels give .*, got none; for example {EXAMPLE}"),
        ("redis+sentinel://a/", "got none"),
        ("redis+sentinel://a/m m", "must be escaped"),
        ("redis+sentinel://a/m%20m", "letters, digits, .*, got other text"),
        ("redis+sentinel:///main", "hosts separated by commas, .*, got nothing in place of one"),
        ("redis+sentinel://a,,b/main", "got nothing in place of one"),
        ("redis+sentinel://a:0/main", "got other text in place of one"),
        ("redis+sentinel://a:65536/main", "got other text in place of one"),
        ("redis+sentinel://a:x/main", "got other text in place of one"),
        ("redis+sentinel://::1/main", "IPv6 address in brackets"),
        ("redis+sentinel://[::1/main", "IPv6 address in brackets"),
        ("redis+sentinel://a/main/x", "one database number behind the service, got other text"),
        ("redis+sentinel://a/main/1/2", "one database number behind the service, got other text"),
        ("redis+sentinel://a/main/1?db=1", "one database number behind the service, got a second one in db"),
        ("redis+sentinel://a/main?unknown=1", "no options but .*sentinel_password.*, got the option 'unknown'"),
        ("redis+sentinel://a/main?db=1&db=2", "each option once, got one of them again"),
        ("redis+sentinel://a/main?sentinel_ssl=maybe", "sentinel_ssl to be true or false"),
        ("redis+sentinel://a/main?ssl_ca_certs=/ca", "ssl_ca_certs only with one of the schemes rediss"),
        ("rediss+sentinel://a/main?ssl_cert_reqs=none", "certificates are checked"),
        ("redis+sentinel://a/main?socket_timeout=0", "socket_timeout to be a number of seconds above 0"),
        ("redis+sentinel://u:p@w@a/main", "'@' as %40"),
        ("redis+sentinel://a/main#f", "must be escaped"),
        ("redis+sentinel://a/main?shards=2", "got the option 'shards'"),
        ("unix+sentinel://a/main", "expected a URL whose scheme is one of redis, .*redis\\+sentinel"),
        ("redis+cluster://a,b:6379/0?shards=6", "got a cluster; clusters are not supported by this release yet; until"),
        (
            "rediss+cluster://u:p@[::1]/?ssl_ca_certs=/ca",
            "got a cluster; clusters are not supported by this release yet",
        ),
        ("redis+cluster://a/1", "no database but 0, which is the only one of a cluster, got another one"),
        ("redis+cluster://a?db=1", "no database but 0"),
        ("redis+cluster://a?shards=0", "shards to be a whole number of at least 1"),
        ("redis+cluster://a:x", "got other text in place of one"),
        ("redis+cluster://a?sentinel_ssl=1", "got the option 'sentinel_ssl'"),
        (
            "redis://a/0 redis://b/0",
            "expected one URL, got 2 of them; lists of servers are not supported by this release",
        ),
        (["redis://a/0", "redis://b/0"], "expected one URL, got a list of 2; lists of servers are not supported"),
        (("redis://a/0",), "expected one URL, got a list of 1"),
    ],
)
def test_a_malformed_url_is_refused_with_what_was_expected_and_given(url: Any, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told) as caught:
        QueueConfig(redis_url=url)
    assert caught.value.field == "redis_url"


def test_an_environment_variable_with_several_urls_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_SYSTEM_REDIS_URL", "redis://a/0 redis+sentinel://b/main")
    with pytest.raises(InvalidInputError, match="expected one URL, got 2 of them") as caught:
        _ = QueueConfig().address
    assert caught.value.field == "QUEUE_SYSTEM_REDIS_URL"


piece = st.sampled_from([
    "a", "b:26379", "[::1]:1", "main", "0", ",", "/", ":", "@", "?", "&", "=", "#", "%2F", "%", "[", "]",
    " ", "\n", "é", "\u2100", "db=1", "sentinel_password=", "password=", "ssl_ca_certs=/x", "sentinel_ssl=1",
    "socket_timeout=2", "shards=2", "😀",
])  # fmt: skip


@given(st.sampled_from([*SENTINEL_SCHEMES, *CLUSTER_SCHEMES]), st.lists(piece, max_size=9), st.integers(0, 9))
@example("redis+sentinel", [f"u:12/{SECRET}@a/main"], 9)
@example("redis+sentinel", [f"u:12?{SECRET}=x@a/main"], 9)
@example("redis+sentinel", [f"u:12#{SECRET}@a/main"], 9)
@example("redis+sentinel", [f"u:{SECRET},a/main"], 9)
@example("redis+sentinel", [f"a/main?sentinel_password=x&{SECRET}=1"], 9)
@example("redis+sentinel", [f"a/main/{SECRET}"], 9)
@example("redis+sentinel", [f"a/{SECRET}@/"], 9)
def test_any_text_is_read_or_one_typed_error_without_any_of_a_password(
    scheme: str, parts: list[str], place: int
) -> None:
    parts.insert(place, f":{SECRET}@") if place < len(parts) else None
    try:
        servers = read_url(f"{scheme}://{''.join(parts)}")
        servers.client(1.0)
    except InvalidInputError as error:
        field, message = error.field, f"{error!r} {error} {error.__cause__!r}"
    else:
        assert SECRET not in repr(servers)
        return
    assert field == "redis_url"
    assert SECRET not in message
    assert str(message).isprintable()
    assert len(message) < 1200
