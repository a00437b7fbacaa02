"""Servers that cannot be used: unreachable, silent, closed or too old. A typed error, soon, without a password."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import socketserver
import threading
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
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import eventually

SECRET = "hunter2"
Serve = Callable[[type[socketserver.BaseRequestHandler]], int]


def process(entity: Any) -> Any:
    return entity


class SilentServer(socketserver.BaseRequestHandler):
    """Accepts connections and never answers."""

    def handle(self) -> None:
        while self.request.recv(4096):
            pass


class OldServer(socketserver.StreamRequestHandler):
    """Speaks as much of the protocol as a server of version 6.0.16 needs to be recognised."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while head := self.rfile.readline():
                words = [self._read_word() for _ in range(int(head[1:]))]
                self.wfile.write(self._answer(words))

    def _read_word(self) -> bytes:
        length = int(self.rfile.readline()[1:])
        return self.rfile.read(length + 2)[:-2]

    def _answer(self, words: list[bytes]) -> bytes:
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
                return b"-ERR unknown command `%b`, with args beginning with: \r\n" % words[0]


class ServerWithoutAuth(OldServer):
    """Does not know AUTH, and quotes what it was given."""

    def _answer(self, words: list[bytes]) -> bytes:
        if words[0].upper() == b"AUTH":
            quoted = b" ".join(b"'%b'" % word for word in words[1:])
            return b"-ERR unknown command 'AUTH', with args beginning with: %b\r\n" % quoted
        return super()._answer(words)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts real TCP servers that are none of Redis, and returns their ports."""
    with contextlib.ExitStack() as stack:

        def start(handler: type[socketserver.BaseRequestHandler]) -> int:
            server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return int(server.server_address[1])

        yield start


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens, kept from others."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def configured(url: str, **settings: Any) -> Iterator[QueueConfig]:
    config = QueueConfig(redis_url=url, logger=LineLogger(), **{"connection_timeout": 0.2, **settings})
    try:
        yield config
    finally:
        config.transport.close()


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
@pytest.mark.parametrize("number", range(5))
def test_every_call_fails_within_bounded_time_if_nobody_listens(closed_port: int, number: int) -> None:
    with configured(f"redis://user:{SECRET}@127.0.0.1:{closed_port}/0") as config:
        with pytest.raises(ServerUnreachableError, match=rf"redis://127\.0\.0\.1:{closed_port}/0") as caught:
            calls(config)[number]()
        assert SECRET not in told(caught.value, config.logger)


@pytest.mark.timeout(20)
def test_a_server_that_accepts_and_never_answers_is_unreachable(serve: Serve) -> None:
    port = serve(SilentServer)
    with configured(f"redis://127.0.0.1:{port}", max_connection_retries=1) as config:
        with pytest.raises(ServerUnreachableError):
            QueueManager(config).enqueue({"n": 1}, process)
        with pytest.raises(ServerUnreachableError):
            config._ensure_redis_sync()


@pytest.mark.timeout(20)
def test_a_host_that_does_not_exist_is_unreachable() -> None:
    with configured(f"redis://:{SECRET}@no-such-host.invalid", max_connection_retries=0) as config:
        with pytest.raises(ServerUnreachableError) as caught:
            QueueManager(config).enqueue({"n": 1}, process)
        assert SECRET not in told(caught.value, config.logger)


def test_a_socket_that_does_not_exist_is_unreachable() -> None:
    with (
        configured("unix:///tmp/no-such-socket", max_connection_retries=0) as config,
        pytest.raises(ServerUnreachableError, match="unix:///tmp/no-such-socket"),
    ):
        QueueManager(config).enqueue({"n": 1}, process)


def test_after_five_failed_calls_the_circuit_rejects_at_once_and_says_when_to_try_again(closed_port: int) -> None:
    with configured(f"redis://127.0.0.1:{closed_port}", max_connection_retries=0) as config:
        manager = QueueManager(config)
        for _ in range(5):
            with pytest.raises(ServerUnreachableError):
                manager.enqueue({"n": 1}, process)
        for call in calls(config):
            with pytest.raises(CircuitOpenError) as caught:
                call()
            assert 0 < caught.value.retry_after <= 30


def test_bad_input_is_refused_without_a_server(closed_port: int) -> None:
    """It counts nothing in the circuit breaker either."""
    with configured(f"redis://127.0.0.1:{closed_port}", max_connection_retries=0) as config:
        manager = QueueManager(config)
        for _ in range(6):
            with pytest.raises(QueueSystemError, match="priority"):
                manager.enqueue({}, process, priority="urgent")
        with pytest.raises(ServerUnreachableError):
            manager.enqueue({}, process)


@pytest.mark.parametrize("number", range(4))
def test_wrong_credentials_are_refused_without_telling_them(start_server: StartServer, number: int) -> None:
    server = start_server(tcp=True, requirepass="right")
    with configured(f"redis://:{SECRET}@127.0.0.1:{server.port}") as config:
        with pytest.raises(AccessDeniedError) as caught:
            calls(config)[number]()
        assert SECRET not in told(caught.value, config.logger)


async def test_a_worker_refuses_to_start_with_wrong_credentials(start_server: StartServer) -> None:
    server = start_server(tcp=True, requirepass="right")
    with configured(f"redis://:{SECRET}@127.0.0.1:{server.port}") as config:
        worker = QueueWorker(config)
        with pytest.raises(AccessDeniedError) as caught:
            await worker.start()
        assert not worker.running
        assert SECRET not in told(caught.value, config.logger)


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


async def test_a_worker_starts_without_its_server_and_serves_once_it_is_there(start_server: StartServer) -> None:
    server = start_server()
    server.stop()
    with configured(server.url) as config:
        worker = QueueWorker(config)
        await worker.start()
        assert worker.running
        assert config.logger.of("server trouble at start: trying again")
        try:
            server.start()
            QueueManager(config).enqueue({"n": 1}, process)
            await eventually(lambda: config.get_metrics()["processed"] == 1, "the operation is processed", 5.0)
        finally:
            await worker.stop()
        assert config.get_metrics().get("lease_lost", 0) == 0


async def test_a_beat_before_the_registration_loses_no_incarnation(config: QueueConfig) -> None:
    """The server answers it with "unregistered", which is true and no loss: what was claimed meanwhile stays held."""
    engine = QueueWorker(config)._open_engine(1)
    incarnation = engine.incarnation
    heartbeat = Heartbeat(config, config.shard, engine, asyncio.get_running_loop())
    await asyncio.to_thread(heartbeat.perform)
    await asyncio.sleep(0)  # what the beat told the loop arrives
    assert engine.incarnation == incarnation


@pytest.mark.parametrize("number", range(4))
def test_a_server_before_6_2_is_refused(serve: Serve, number: int) -> None:
    port = serve(OldServer)
    with (
        configured(f"redis://127.0.0.1:{port}") as config,
        pytest.raises(UnsupportedServerError, match=r"6\.0\.16.*Redis 6\.2"),
    ):
        calls(config)[number]()


async def test_a_server_before_6_2_is_refused_in_a_coroutine_too(serve: Serve) -> None:
    port = serve(OldServer)
    with configured(f"redis://127.0.0.1:{port}") as config:
        manager = QueueManager(config)
        for call in (partial(manager.aenqueue, {}, process), manager.aget_queue_status):
            with pytest.raises(UnsupportedServerError, match=r"6\.0\.16.*Redis 6\.2"):
                await call()
        await config.aclose()


@pytest.mark.parametrize("rule, count", [("+info", "calls"), ("-info", "rejected_calls")])
async def test_a_coroutine_asks_for_the_version_once_even_where_it_may_not(
    start_server: StartServer, rule: str, count: str
) -> None:
    server = start_server()
    with (
        contextlib.closing(server.client()) as client,
        configured(f"unix://shop:{SECRET}@{server.socket_path}", connection_timeout=5.0) as config,
    ):
        client.acl_setuser("shop", enabled=True, nopass=True, keys=["*"], commands=["+@all", rule])
        client.config_resetstat()
        manager = QueueManager(config)
        for _ in range(2):
            await manager.aenqueue({}, process)
            await config.aclose()
        assert client.info("commandstats")["cmdstat_info"][count] == 1
        assert manager.get_queue_status()["total_items"] == 2


@pytest.mark.timeout(20)
async def test_a_worker_tells_that_its_server_is_too_old(serve: Serve) -> None:
    """Start raises it, or the log names it while the worker keeps trying."""
    port = serve(OldServer)
    with configured(f"redis://127.0.0.1:{port}") as config:
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


def test_a_server_that_quotes_the_password_does_not_bring_it_into_a_message(serve: Serve) -> None:
    port = serve(ServerWithoutAuth)
    with configured(f"redis://user:{SECRET}@127.0.0.1:{port}") as config:
        with pytest.raises(QueueSystemError) as caught:
            QueueManager(config).enqueue({}, process)
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(config.logger.lines)


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


@contextlib.contextmanager
def provided(server: OwnServer, provider: Provider, **settings: Any) -> Iterator[QueueConfig]:
    with contextlib.closing(
        redis.Redis.from_url(f"unix://{server.socket_path}", credential_provider=provider)
    ) as client:
        config = QueueConfig(redis_client=client, logger=LineLogger(), **settings)
        try:
            yield config
        finally:
            config.transport.close()


async def test_a_credential_provider_that_fails_is_a_typed_error_and_is_asked_again(start_server: StartServer) -> None:
    provider = Provider()
    with provided(start_server(requirepass=SECRET), provider, max_connection_retries=0) as config:
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


def has_processed(config: QueueConfig, count: int) -> bool:
    return bool(config.get_metrics().get("processed", 0) == count)


@pytest.mark.timeout(20)
async def test_a_worker_outlives_a_credential_provider_that_fails(start_server: StartServer) -> None:
    server = start_server(requirepass=SECRET)
    provider = Provider()
    provider.failures = 1
    with provided(server, provider) as config, provided(server, Provider()) as other:
        worker = QueueWorker(config)
        await worker.start()
        try:
            QueueManager(other).enqueue({"n": 1}, process)
            await eventually(partial(has_processed, config, 1), "the first is processed", 5.0)
            provider.failures = 2
            with contextlib.closing(server.client()) as client:
                client.client_kill_filter(_type="normal", skipme=True)
            QueueManager(other).enqueue({"n": 2}, process)
            await eventually(partial(has_processed, config, 2), "the second is processed", 5.0)
        finally:
            await worker.stop()
        assert provider.failed == 3


def test_a_foreign_type_under_the_prefix_is_a_typed_error_and_nothing_is_written(
    queue: QueueManager, client: redis.Redis
) -> None:
    key = queue.config.get_queue_key("process")
    client.set(key, "foreign")
    with pytest.raises(QueueSystemError, match="holds a value of another type"):
        queue.enqueue({"n": 1}, process)
    assert list(client.scan_iter(match=f"{queue.config.queue_prefix}*")) == [key.encode()]
