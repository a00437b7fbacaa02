"""Servers that cannot be used: unreachable, silent, closed or too old. A typed error, soon, without a password."""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from queue_system import (
    AccessDeniedError,
    CircuitOpenError,
    InvalidInputError,
    QueueConfig,
    QueueManager,
    QueueSystemError,
    QueueWorker,
    ServerUnreachableError,
    UnsupportedServerError,
)
from queue_system.maintenance.heartbeat import Heartbeat
from tests.kit.configs import MakeConfig, configs
from tests.kit.logs import LineLogger
from tests.kit.operations import process
from tests.kit.servers import OwnServer, StartServer
from tests.kit.strange_servers import QuotingServer, SilentServer, serving
from tests.kit.waiting import eventually
from tests.kit.workers import running

SECRET = "hunter2"
NOBODY = "redis://127.0.0.1:1"


class OldServer(QuotingServer):
    """Speaks as much of the protocol as a server of version 6.0.16 needs to be recognised."""

    def answer(self, words: list[bytes]) -> bytes:
        match words[0].upper():
            case b"INFO":
                text = b"# Server\r\nredis_version:6.0.16\r\nredis_mode:standalone\r\n"
                return b"$%d\r\n%b\r\n" % (len(text), text)
            case b"EVALSHA":
                return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
            case b"EVAL":
                return b"-ERR Error running script: Wrong number of args calling Redis command From Lua script\r\n"
            case b"AUTH" | b"SELECT" | b"PING":
                return b"+OK\r\n"
            case _:
                return super().answer(words)


@pytest.fixture
def configured() -> Iterator[MakeConfig]:
    """Makes configurations of servers in trouble."""
    with configs("redis://localhost", "queue:", connection_timeout=0.2) as make:
        yield make


def told(error: BaseException, log: LineLogger) -> str:
    """All that a user or a log may see of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(log.lines)


def calls(config: QueueConfig) -> list[Callable[[], Any]]:
    manager = QueueManager(config)
    return [
        lambda: manager.enqueue({"n": 1}, process),
        lambda: manager.enqueue_batch([{"n": 1}], process),
        manager.get_queue_status,
        lambda: manager.purge_queue("process"),
        config._ensure_redis_sync,
    ]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@127.0.0.1:1/0", "redis://127.0.0.1:{silent}", f"redis://:{SECRET}@no-such-host.invalid",
        "unix:///tmp/no-such-socket",
    ],
)  # fmt: skip
def test_a_server_that_is_silent_or_not_there_is_unreachable(configured: MakeConfig, url: str) -> None:
    with serving(SilentServer) as silent:
        address = url.format(silent=silent)
        config = configured(redis_url=address, max_connection_retries=1)
        for call in (partial(QueueManager(config).enqueue, {"n": 1}, process), config._ensure_redis_sync):
            with pytest.raises(ServerUnreachableError, match=re.escape(address.replace(f":{SECRET}@", ""))) as caught:
                call()
            assert SECRET not in told(caught.value, config.logger)


def test_after_five_failed_calls_the_circuit_rejects_at_once_and_says_when_to_try_again(configured: MakeConfig) -> None:
    config = configured(redis_url=NOBODY, max_connection_retries=0)
    for _ in range(5):
        with pytest.raises(ServerUnreachableError):
            QueueManager(config).enqueue({"n": 1}, process)
    for call in calls(config):
        with pytest.raises(CircuitOpenError) as caught:
            call()
        assert 0 < caught.value.retry_after <= 30


def test_bad_input_is_refused_without_a_server(configured: MakeConfig) -> None:
    """It counts nothing in the circuit breaker either."""
    manager = QueueManager(configured(redis_url=NOBODY, max_connection_retries=0))
    for _ in range(6):
        with pytest.raises(QueueSystemError, match="priority"):
            manager.enqueue({}, process, priority="urgent")
    with pytest.raises(ServerUnreachableError):
        manager.enqueue({}, process)


@pytest.mark.parametrize("number", range(4))
def test_wrong_credentials_are_refused_without_telling_them(
    start_server: StartServer, configured: MakeConfig, number: int
) -> None:
    server = start_server(tcp=True, requirepass="right")
    config = configured(redis_url=f"redis://:{SECRET}@127.0.0.1:{server.port}")
    with pytest.raises(AccessDeniedError) as caught:
        calls(config)[number]()
    assert SECRET not in told(caught.value, config.logger)


async def test_a_worker_refuses_to_start_with_wrong_credentials(
    start_server: StartServer, configured: MakeConfig
) -> None:
    server = start_server(tcp=True, requirepass="right")
    worker = QueueWorker(configured(redis_url=f"redis://:{SECRET}@127.0.0.1:{server.port}"))
    with pytest.raises(AccessDeniedError) as caught:
        await worker.start()
    assert not worker.running
    assert SECRET not in told(caught.value, worker.config.logger)


@pytest.mark.timeout(20)
async def test_a_worker_refuses_to_start_with_a_url_from_the_environment_that_names_no_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trying again would change nothing."""
    monkeypatch.delenv("QUEUE_SYSTEM_REDIS_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "gopher://localhost")
    worker = QueueWorker(QueueConfig())
    with pytest.raises(InvalidInputError, match=r"REDIS_URL: expected .*, got the scheme 'gopher'"):
        await worker.start()
    assert not worker.running


async def test_a_beat_before_the_registration_loses_no_incarnation(config: QueueConfig) -> None:
    """The server answers it with "unregistered", which is true and no loss: what was claimed meanwhile stays held."""
    engine = QueueWorker(config)._open_engine(1)
    incarnation = engine.incarnation
    heartbeat = Heartbeat(config, config.shard, engine, asyncio.get_running_loop())
    await asyncio.to_thread(heartbeat.perform)
    await asyncio.sleep(0)  # what the beat told the loop arrives
    assert engine.incarnation == incarnation


@pytest.mark.parametrize("number", range(4))
def test_a_server_before_6_2_is_refused(configured: MakeConfig, number: int) -> None:
    with serving(OldServer) as port, pytest.raises(UnsupportedServerError, match=r"6\.0\.16.*Redis 6\.2"):
        calls(configured(redis_url=f"redis://127.0.0.1:{port}"))[number]()


async def test_a_server_before_6_2_is_refused_in_a_coroutine_too(configured: MakeConfig) -> None:
    with serving(OldServer) as port:
        config = configured(redis_url=f"redis://127.0.0.1:{port}")
        manager = QueueManager(config)
        for call in (partial(manager.aenqueue, {}, process), manager.aget_queue_status):
            with pytest.raises(UnsupportedServerError, match=r"6\.0\.16.*Redis 6\.2"):
                await call()
        await config.aclose()


@pytest.mark.parametrize("rule, count", [("+info", "calls"), ("-info", "rejected_calls")])
async def test_a_coroutine_asks_for_the_version_once_even_where_it_may_not(
    start_server: StartServer, configured: MakeConfig, rule: str, count: str
) -> None:
    server = start_server()
    config = configured(redis_url=f"unix://shop:{SECRET}@{server.socket_path}", connection_timeout=5.0)
    with server.client() as client:
        client.acl_setuser("shop", enabled=True, nopass=True, keys=["*"], commands=["+@all", rule])
        client.config_resetstat()
        manager = QueueManager(config)
        for _ in range(2):
            await manager.aenqueue({}, process)
            await config.aclose()
        assert client.info("commandstats")["cmdstat_info"][count] == 1
        assert manager.get_queue_status()["total_items"] == 2


@pytest.mark.timeout(20)
async def test_a_worker_tells_that_its_server_is_too_old(configured: MakeConfig) -> None:
    """Start raises it, or the log names it while the worker keeps trying."""
    with serving(OldServer) as port:
        config = configured(redis_url=f"redis://127.0.0.1:{port}")
        worker = QueueWorker(config)
        try:
            await worker.start()
        except UnsupportedServerError:
            return
        try:
            await eventually(
                lambda: any("UnsupportedServerError" in repr(fields) for _, _, fields in config.logger.lines),
                "the log names the error",
                5.0,
            )
        finally:
            await worker.stop()


class Provider(redis.CredentialProvider):
    """A credential provider of the user's that can be made to fail a few times."""

    def __init__(self) -> None:
        self.failures = 0
        self.failed = 0

    def get_credentials(self) -> tuple[str, str]:
        if self.failures > 0:
            self.failures -= 1
            self.failed += 1
            raise LookupError(f"no token; password={SECRET}")
        return "default", SECRET


def client_of(server: OwnServer, provider: Provider) -> redis.Redis:
    return redis.Redis.from_url(f"unix://{server.socket_path}", credential_provider=provider)


async def test_a_credential_provider_that_fails_is_a_typed_error_and_is_asked_again(
    start_server: StartServer, configured: MakeConfig
) -> None:
    provider = Provider()
    client = client_of(start_server(requirepass=SECRET), provider)
    config = configured(redis_client=client, redis_url=None, max_connection_retries=0, connection_timeout=5.0)
    queue = QueueManager(config)
    provider.failures = 2
    with pytest.raises(ServerUnreachableError, match="no token") as caught:
        queue.enqueue({}, process)
    assert SECRET not in told(caught.value, config.logger)
    with pytest.raises(ServerUnreachableError, match="no token") as caught:
        await queue.aenqueue({}, process)
    assert SECRET not in told(caught.value, config.logger)
    queue.enqueue({}, process)
    await queue.aenqueue({}, process)
    assert queue.get_queue_status()["total_items"] == 2
    await config.aclose()


@pytest.mark.timeout(20)
async def test_a_worker_outlives_a_credential_provider_that_fails(
    start_server: StartServer, configured: MakeConfig
) -> None:
    server = start_server(requirepass=SECRET)
    provider = Provider()
    provider.failures = 1
    config, other = (
        configured(redis_client=client_of(server, each), redis_url=None, connection_timeout=5.0)
        for each in (provider, Provider())
    )
    async with running(QueueWorker(config)):
        QueueManager(other).enqueue({"n": 1}, process)
        await eventually(lambda: config.get_metrics()["processed"] == 1, "the first is processed", 5.0)
        provider.failures = 2
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        QueueManager(other).enqueue({"n": 2}, process)
        await eventually(lambda: config.get_metrics()["processed"] == 2, "the second is processed", 5.0)
    assert provider.failed == 3
