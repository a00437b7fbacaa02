"""The proxy stands for a server at any kind of address. What it does to connections, the fault tests show."""

from __future__ import annotations

import contextlib
import gc
import socket

import pytest

from queue_system import QueueConfig, QueueManager, ServerUnreachableError
from queue_system.testing import Proxy, captured_operations
from tests.kit.servers import StartServer


@pytest.mark.parametrize("tcp", [False, True])
def test_it_passes_what_it_is_not_told_to_lose(start_server: StartServer, tcp: bool) -> None:
    """Behind a socket or a port, with the server's password in its URL, every command gets through."""
    server = start_server(tcp=tcp, requirepass="secret")
    with Proxy(server.url) as proxy:
        config = QueueConfig(redis_url=proxy.url)
        QueueManager(config).enqueue({"id": 1}, "mails.send_mail")
        assert len(captured_operations(config)) == 1
        assert proxy.seen["enqueue"] >= 1  # twice where the server does not know the script yet
        config.transport.close()


def test_a_request_that_is_lost_reaches_nobody(start_server: StartServer) -> None:
    """The caller learns that the outcome is unknown, and the server knows nothing of it."""
    server = start_server()
    with Proxy(server.url) as proxy:
        config = QueueConfig(redis_url=proxy.url, max_connection_retries=0)
        proxy.lose("request", "enqueue", times=1)
        with pytest.raises(ServerUnreachableError):
            QueueManager(config).enqueue({"id": 1}, "mails.send_mail")
        assert captured_operations(config) == []
        config.transport.close()


def test_a_connection_that_comes_while_it_ends_is_closed(start_server: StartServer) -> None:
    """A socket that nobody closes is a warning, and so an error, in whatever test runs when it is collected."""
    server = start_server()
    for _ in range(50):
        with Proxy(server.url) as proxy:
            host, _, port = proxy.address.rpartition(":")
            client = socket.create_connection((host, int(port)))
        with client:
            client.settimeout(5.0)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
    gc.collect()
