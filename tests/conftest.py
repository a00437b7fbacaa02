"""The fixtures that every test may use: real servers, and a key prefix of its own for each test."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.acl import FRESH_PREFIX, AclServer
from tests.support.servers import OwnServer, StartServer


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start, also in the background of a shell that ignores it there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[OwnServer]:
    """The server that all tests share. A test leaves it running, and writes under its `prefix` only.

    With QUEUE_SYSTEM_ACL=1, the tests reach it as the worker of docs/acl, and only `client()` may do more.
    """
    with AclServer(FRESH_PREFIX) if os.environ.get("QUEUE_SYSTEM_ACL") else OwnServer() as shared:
        yield shared


@pytest.fixture
def prefix(server: OwnServer) -> Iterator[str]:
    """A fresh key prefix; the keys under it are deleted after the test."""
    fresh = f"t{uuid.uuid4().hex[:12]}:"
    yield fresh
    with contextlib.closing(server.client()) as client:
        if keys := list(client.scan_iter(match=f"{fresh}*", count=1000)):
            client.unlink(*keys)


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers that a test may stop, kill and restart; `OwnServer` says with which options."""
    with contextlib.ExitStack() as started:

        def start(*, binary: Path | None = None, tcp: bool = False, **options: str) -> OwnServer:
            return started.enter_context(OwnServer(binary=binary, tcp=tcp, **options))

        yield start
