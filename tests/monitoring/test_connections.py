"""Who connects to the probes and says nothing, too little or nonsense holds up nobody else."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator

import pytest

from queue_system import QueueConfig
from queue_system.monitoring import connections
from queue_system.monitoring.guard import host_name, is_named, is_private
from queue_system.monitoring.probes import ProbeServer, create_app
from tests.kit.raw_http import PATIENCE_S, answer, dial, request, rest
from tests.kit.servers import OwnServer
from tests.kit.waiting import wait_until


@pytest.fixture(scope="module")
def port(server: OwnServer) -> Iterator[int]:
    """The port of a probe server that answers to some public names."""
    config = QueueConfig(redis_url=server.url, queue_prefix="t-connections:")
    probes = ProbeServer(create_app(config, None), "127.0.0.1:0", ["worker.example.org", "*.example.net"])
    probes.start()
    yield probes.port
    probes.stop()
    config.transport.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\n"],
    ids=["silent", "headers"],
)
def test_a_flood_of_connections_that_ask_nothing_leaves_the_probe_to_others(port: int, said: bytes) -> None:
    with contextlib.ExitStack() as flood:
        for _ in range(2 * connections.MOST_CONNECTIONS):
            flood.enter_context(dial(port, said))
        for _ in range(3):
            assert answer(port, request("/livez")).startswith(b"HTTP/1.1 200 ")


def test_what_sends_no_request_in_time_is_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent at once, in the midst of its headers, with one header after the other, or after an answer."""
    monkeypatch.setattr(connections, "REQUEST_WITHIN_S", 0.3)
    assert answer(port, b"") == b""
    assert answer(port, b"GET /livez HTTP/1.1\r\nHost: loc") == b""
    with dial(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n") as slow, contextlib.suppress(OSError):
        slow.settimeout(0.05)
        for _ in range(400):
            slow.sendall(b"X-A: 1\r\n")
            with contextlib.suppress(TimeoutError):
                assert slow.recv(1) == b""
                break
        else:
            pytest.fail("it may send headers for ever")
    kept = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert answer(port, kept).startswith(b"HTTP/1.1 200 ")
    assert answer(port, kept + b"GET /li").count(b"HTTP/1.1 200 ") == 1


@pytest.mark.parametrize(
    "host",
    ["localhost:9200", "127.0.0.1", "[::1]:9200", "10.0.0.7:9200", "worker-1", "Worker.Example.org",
     "a.b.example.net:1", "queue-exporter.default.svc:9200", "x.svc.cluster.local"],
)  # fmt: skip
def test_probes_are_answered_under_addresses_private_names_and_those_that_are_named(port: int, host: str) -> None:
    assert answer(port, request("/livez", host=host)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["rebound.example.org", "127.0.0.1.example.com", "", "a b", "[::1", "xexample.net"])
@pytest.mark.parametrize("path", ["/livez", "/metrics", "/nowhere"])
def test_a_foreign_name_of_the_host_is_refused(port: int, host: str, path: str) -> None:
    """As a page of another site has it that lets its own name lead here."""
    assert answer(port, request(path, host=host))[9:12] in {b"421", b"400"}


@pytest.mark.parametrize(
    "sent",
    [
        request("/livez") .replace(b"Connection", b"Host: evil.example.org\r\nConnection"),
        request("http://evil.example.org/livez"),
        request("/livez", f"X-A: {'a' * 100_000}"),
        request("/livez", *(f"X-{n}: {n}" for n in range(20_000))),
        request("/livez", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
        *(request("/livez", method=name) for name in ("TRACE", "OPTIONS", "POST")), request("*", method="OPTIONS"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET\r\n\r\n", b"GET /livez HTTP/9\r\n\r\n",
    ],
    ids=["two-hosts", "absolute", "long-header", "many-headers", "websocket", "trace", "options", "post", "star", "tls",
         "short", "http9"],
)  # fmt: skip
def test_what_is_no_plain_request_is_refused_without_a_line_in_the_log(
    port: int, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    received = answer(port, sent)
    assert received == b"" or received[9:10] == b"4"
    assert caplog.records == []
    assert answer(port, request("/livez", method="HEAD")).endswith(b"\r\n\r\n")


def test_a_request_without_a_host_is_one_of_no_browser(port: int) -> None:
    assert answer(port, b"GET /livez HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_names_are_compared_as_names() -> None:
    assert host_name("Example.org.:80") == "example.org"
    assert host_name("[::1") == ""
    assert is_private("worker-1")
    assert not is_private("worker-1.example.org")
    assert is_named("a.example.org", ["*.example.org"])
    assert not is_named("example.org.evil.net", ["example.org", "*.example.org"])


def test_a_process_without_free_descriptors_says_so_once_and_answers_later(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As one whose processor leaks files; asyncio would log it some thousand times a second."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as connection:
        connection.settimeout(PATIENCE_S)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            connection.connect(("127.0.0.1", port))
            wait_until(lambda: "out of system resource" in caplog.text, "that is logged")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        connection.sendall(request("/livez"))
        assert b" 200 OK" in rest(connection)
    assert caplog.text.count("out of system resource") == 1
