"""`queue-system dashboard` as a process: what connects and says nothing, or nonsense, holds up nobody else."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from queue_system.monitoring.connections import MOST_CONNECTIONS, BriefProtocol, StreamProtocol
from tests.cli.support import read_until, started
from tests.kit.raw_http import answer, dial, request
from tests.kit.servers import OwnServer


@pytest.fixture(scope="module")
def port(server: OwnServer) -> Iterator[int]:
    """The port of a dashboard, which it tells at its start."""
    place = {"QUEUE_SYSTEM_REDIS_URL": server.url, "QUEUE_SYSTEM_PREFIX": "t-dashboard:"}
    with started("dashboard", "--port", "0", **place) as process:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", read_until(process, " and reads only"))
        assert found
        yield int(found[1])


def test_a_flood_of_silent_connections_leaves_the_pages_to_others(port: int) -> None:
    with contextlib.ExitStack() as flood:
        for _ in range(2 * MOST_CONNECTIONS):
            flood.enter_context(dial(port))
        assert answer(port, request("/")).startswith(b"HTTP/1.1 200 ")


def test_a_stream_of_live_figures_may_last_and_a_probe_s_answer_may_not() -> None:
    assert StreamProtocol.answer_within_s is None
    assert BriefProtocol.answer_within_s is not None


@pytest.mark.parametrize(
    "sent",
    [
        request("http://evil.example.org/"),
        request("/", "Host: evil.example.org"),
        request("/").replace(b"localhost", b"evil.example.org"),
        request("/", f"X-A: {'a' * 100_000}"),
        request("/", *(f"X-{n}: {n}" for n in range(5000))),
        request("/events", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        request("/", "X-Forwarded-For: 127.0.0.1"),
        request("/", method="TRACE"),
        request("/", method="OPTIONS"),
        request("/login", "Content-Length: 999999999", "Origin: http://localhost", method="POST"),
        request("/login", "Transfer-Encoding: chunked", "Origin: http://localhost", method="POST"),
    ],
    ids=["absolute", "two-hosts", "foreign", "long", "many", "websocket", "forwarded", "trace", "options", "large",
         "chunked"],
)  # fmt: skip
def test_what_no_browser_of_ours_sends_is_refused(port: int, sent: bytes) -> None:
    received = answer(port, sent)
    assert received == b"" or received[9:10] == b"4"
