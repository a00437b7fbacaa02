"""A shard is one server under one prefix; shards share nothing but what they are made of. Connects to no server."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from queue_system import CircuitOpenError, QueueConfig, ServerUnreachableError
from queue_system.broker.commands import Commands, ping
from queue_system.broker.server import Server
from queue_system.broker.shard import SERVER_BREAKER, Shard
from queue_system.broker.urls import read_url
from queue_system.model.keys import Keys
from queue_system.resilience.circuits import breaker_states

NOWHERE = "redis://127.0.0.1:1/0"
TIMEOUT_S = 5.0


def make_shard(prefix: str, server: Server, *, beat_silence_s: float = 60.0) -> Shard:
    return Shard(server, Commands(Keys(prefix), 1000), retries=0, beat_silence_s=beat_silence_s)


def make_server(url: str | None = NOWHERE) -> Server:
    return Server(None, None if url is None else read_url(url), TIMEOUT_S)


def test_a_shard_opens_nothing_until_it_is_used() -> None:
    server = make_server()
    shard = make_shard("a:", server)
    shard.close()
    assert server.known_client is None
    with pytest.raises(ServerUnreachableError, match=r"127\.0\.0\.1:1"):
        shard.run(ping())


def test_an_outage_of_one_shard_closes_no_other() -> None:
    """Breaker, log throttles and what is known of durabilities belong to one shard each."""
    down = make_shard("a:", make_server())
    other = make_shard("b:", make_server())
    for _ in range(5):
        with pytest.raises(ServerUnreachableError):
            down.run(ping())
    with pytest.raises(CircuitOpenError):
        down.run(ping())
    assert not other.breaker.is_open
    assert down.breaker_name != other.breaker_name
    assert {down.breaker_name, other.breaker_name} <= {name for name in breaker_states() if SERVER_BREAKER in name}
    assert down.outage.ready()
    assert not down.outage.ready()
    assert other.outage.ready()
    down.confirmable.add("fsync")
    assert not other.confirmable


async def test_both_ways_to_run_a_command_share_one_breaker() -> None:
    shard = make_shard("a:", make_server())
    for _ in range(5):
        with pytest.raises(ServerUnreachableError):
            await shard.arun(ping())
    with pytest.raises(CircuitOpenError):
        shard.run(ping())
    await shard.aclose()


def test_beats_have_a_connection_of_their_own_only_where_they_bear_less_silence() -> None:
    server = make_server()
    patient = make_shard("a:", server, beat_silence_s=TIMEOUT_S)
    hasty = make_shard("a:", server, beat_silence_s=TIMEOUT_S / 2)
    assert patient.beat_transport is patient.transport
    assert hasty.beat_transport is not hasty.transport


def test_a_command_of_a_shard_lies_under_its_prefix() -> None:
    server = make_server()
    requests = [make_shard(prefix, server).commands.status("0").request() for prefix in ("a:", "b:")]
    assert b"\r\na:\r\n" in requests[0]
    assert b"\r\nb:\r\n" in requests[1]


def test_a_server_is_chosen_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its address is told without a connection, and without starting an embedded one."""
    for name in ("QUEUE_SYSTEM_REDIS_URL", "QUEUE_SYSTEM_REDIS_URL_FILE", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    server = make_server(None)
    monkeypatch.setenv("QUEUE_SYSTEM_DATA_DIR", str(tmp_path / "data"))
    assert server.address == f"embedded://{tmp_path / 'data'}"
    assert server.missing_data_dir() == tmp_path / "data"
    monkeypatch.setenv("REDIS_URL", "redis://:secret@chosen:7/2")
    assert server.address == "redis://chosen:7/2"
    assert server.missing_data_dir() is None
    client = server.client()
    assert server.client() is client is server.known_client
    monkeypatch.setenv("REDIS_URL", "redis://other:7/2")
    assert server.endpoint() is server.endpoint()
    assert server.address == "redis://chosen:7/2"


def test_a_configuration_has_one_shard_and_offers_what_it_always_did() -> None:
    client = redis.Redis.from_url(NOWHERE)
    config = QueueConfig(client, queue_prefix="mine:")
    shard = config.shard
    assert config.shards == (shard,)
    assert config.redis_client is client
    assert (config.keys, config.commands) == (shard.keys, shard.commands)
    assert (config.transport, config.breaker) == (shard.transport, shard.breaker)
    assert (config.run, config.arun) == (shard.run, shard.arun)
    assert config.endpoint() is shard.endpoint()
    assert shard.keys.prefix == config.queue_prefix == "mine:"


async def test_a_configuration_prepares_and_closes_all_its_shards() -> None:
    config = QueueConfig(redis_url=NOWHERE)
    touched: list[str] = []

    class Noted(Shard):
        def close(self) -> None:
            touched.append(f"close {self.keys.prefix}")

        async def aclose(self) -> None:
            touched.append(f"aclose {self.keys.prefix}")

    config.shards = tuple(
        Noted(make_server(), Commands(Keys(prefix), 1000), retries=0, beat_silence_s=60.0) for prefix in ("a:", "b:")
    )
    config.prepare()
    config.close()
    await config.aclose()
    assert touched == ["close a:", "close b:", "aclose a:", "aclose b:"]
    assert all(shard.server.known_client is not None for shard in config.shards)


async def test_a_new_route_lets_the_next_call_through_that_the_breaker_would_reject() -> None:
    """In a thread and in a coroutine, which shows in the error: the server itself is not there either."""
    shard = make_shard("a:", make_server())
    for _ in range(5):
        with pytest.raises(ServerUnreachableError):
            shard.run(ping())
    with pytest.raises(CircuitOpenError):
        shard.run(ping())
    shard.breaker.half_open()
    with pytest.raises(ServerUnreachableError):
        shard.run(ping())
    shard.breaker.half_open()
    with pytest.raises(ServerUnreachableError):
        await shard.arun(ping())
    with pytest.raises(CircuitOpenError):
        await shard.arun(ping())
