"""A producer's call ends at its limit, as a whole: whatever the server, the network and the process around it do."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from queue_system import QueueConfig, QueueManager, ServerUnreachableError
from tests.kit.servers import OwnServer, StartServer, frozen
from tests.kit.source import ROOT

LIMIT_S = 0.5
OUTER_S = 10.0
"""Many times the limit, and much less than what a call took that kept none."""

Handle = Callable[[socket.socket], object]


@contextlib.contextmanager
def listening(handle: Handle, backlog: int = 16) -> Iterator[int]:
    """Accept connections on a port and handle each in a thread of its own."""
    accepted: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                accepted.append(connection)
                threading.Thread(target=_quietly, args=(handle, connection), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in accepted:
                connection.close()


def _quietly(handle: Handle, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        handle(connection)


def producer(url: str, **settings: Any) -> QueueManager:
    """A manager whose calls are tried once, and end after half a second."""
    return QueueManager(QueueConfig(redis_url=url, connection_timeout=LIMIT_S, max_connection_retries=0, **settings))


def call(queue: QueueManager, way: str) -> None:
    """Enqueue, which must fail in time."""
    started = time.monotonic()
    with pytest.raises(ServerUnreachableError):
        enqueue(queue, way)
    assert time.monotonic() - started < OUTER_S


def enqueue(queue: QueueManager, way: str) -> dict[str, Any]:
    return asyncio.run(queue.aenqueue({}, "shop.pack")) if way == "async" else queue.enqueue({}, "shop.pack")


@pytest.mark.parametrize("world", ["plain", "gevent all", "gevent sockets", "gevent threadpool", "eventlet all"])
def test_the_limit_holds_in_every_kind_of_thread(start_server: StartServer, world: str) -> None:
    if world != "plain" and importlib.util.find_spec(world.partition(" ")[0]) is None:
        pytest.skip(f"{world} is not installed; `make install` brings it")
    server = start_server(tcp=True)
    program = [sys.executable, "-W", "ignore", "-m", "tests.faults.frozen_producer", world, server.url, str(server.pid)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=OUTER_S * 2, check=False)
    assert ended.stdout.startswith("ServerUnreachableError"), ended.stderr
    assert float(ended.stdout.split()[1]) < OUTER_S


@pytest.mark.parametrize("fresh", [False, True])
def test_signals_do_not_prolong_the_limit(start_server: StartServer, fresh: bool) -> None:
    """Each interrupts what waits in the kernel, which begins its limit anew."""
    server = start_server()
    queue = producer(server.url)
    queue.enqueue({}, "shop.pack")
    if fresh:
        queue.config.transport.close()
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    with frozen(server):
        limit = signal.setitimer(signal.ITIMER_REAL, LIMIT_S / 5, LIMIT_S / 5)
        try:
            call(queue, "blocking")
        finally:
            signal.setitimer(signal.ITIMER_REAL, *limit)  # the test's own time limit
            signal.signal(signal.SIGALRM, before)
    assert rung


def drip(connection: socket.socket, answer: bytes) -> None:
    """Answer the first request byte by byte, much faster than the limit, for longer than it."""
    connection.recv(65536)
    send_slowly(connection, answer)


def send_slowly(connection: socket.socket, answer: bytes) -> None:
    for byte in answer:
        connection.send(bytes([byte]))
        time.sleep(LIMIT_S / 5)  # the slowness itself


@pytest.mark.parametrize("way", ["blocking", "async"])
@pytest.mark.parametrize("answer", [b"$1000\r\n" + b"x" * 1000, b"+" + b"O" * 1000])
def test_bytes_that_come_one_by_one_do_not_prolong_the_limit(way: str, answer: bytes) -> None:
    """Be it that they answer the log-in or a command."""
    with listening(lambda connection: drip(connection, answer)) as port:
        call(producer(f"redis://127.0.0.1:{port}/0"), way)


@pytest.mark.parametrize("way", ["blocking", "async"])
def test_bytes_of_a_command_s_answer_that_come_one_by_one_do_not_prolong_the_limit(
    server: OwnServer, prefix: str, way: str
) -> None:
    """On a connection that has served before."""
    with listening(serve_then_drip) as port:
        queue = producer(f"redis://127.0.0.1:{port}/0", queue_prefix=prefix)

        async def twice() -> None:
            await queue.aenqueue({}, "shop.pack")
            await queue.aenqueue({}, "shop.pack")

        def both() -> None:
            queue.enqueue({}, "shop.pack")
            queue.enqueue({}, "shop.pack")

        started = time.monotonic()
        with pytest.raises(ServerUnreachableError):
            asyncio.run(twice()) if way == "async" else both()
        assert time.monotonic() - started < OUTER_S


def serve_then_drip(connection: socket.socket) -> None:
    """Answer one enqueue, and the next byte by byte."""
    enqueued = 0
    while request := connection.recv(65536):
        if b"EVAL" in request:
            enqueued += 1
            if enqueued == 2:
                break
            connection.sendall(b":1\r\n")
        else:
            connection.sendall(b"-ERR unknown\r\n" * request.count(b"*"))
    send_slowly(connection, b"$1000\r\n" + b"x" * 1000)


@pytest.mark.parametrize("way", ["blocking", "async"])
def test_a_name_that_is_not_resolved_in_time_ends_the_call(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    real = socket.getaddrinfo

    def hang(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "redis.example":
            answered.wait()
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        call(producer("redis://redis.example:6379/0"), way)
    finally:
        answered.set()


@pytest.mark.parametrize("way", ["blocking", "async"])
@pytest.mark.parametrize("answer", [b"", b"\x16\x03\x03\x40\x00" + b"x" * 1000])
def test_a_tls_handshake_that_comes_to_no_end_ends_the_call(way: str, answer: bytes) -> None:
    def shake(connection: socket.socket) -> None:
        drip(connection, answer)
        connection.recv(65536)

    with listening(shake) as port:
        call(producer(f"rediss://127.0.0.1:{port}/0"), way)


@pytest.mark.parametrize("way", ["blocking", "async"])
def test_a_server_that_accepts_no_more_connections_ends_the_call(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(4):
            queued = waiting.enter_context(socket.socket())
            queued.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                queued.connect(full.getsockname())
        call(producer(f"redis://127.0.0.1:{full.getsockname()[1]}/0"), way)


def test_a_host_s_name_leads_to_the_server_by_whichever_address_answers(start_server: StartServer) -> None:
    queue = producer(start_server(tcp=True).url.replace("127.0.0.1", "localhost"))
    assert enqueue(queue, "blocking")["status"] == "queued"
    assert enqueue(queue, "async")["status"] == "queued"
