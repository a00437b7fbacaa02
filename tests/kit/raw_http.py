"""HTTP as a stranger speaks it, byte by byte. Never waits longer than for `PATIENCE_S`."""

from __future__ import annotations

import contextlib
import socket

PATIENCE_S = 20.0


def request(path: str, *more: str, host: str = "localhost", method: str = "GET") -> bytes:
    """A request after whose answer the server closes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *more, "", ""]
    return "\r\n".join(lines).encode()


def dial(port: int, sent: bytes = b"") -> socket.socket:
    """A connection to a port of this machine on which something has been sent."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    with contextlib.suppress(ConnectionError):  # it may be refused before all is sent
        connection.sendall(sent)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            received += part
    return received


def answer(port: int, sent: bytes) -> bytes:
    """All that comes in answer until the other side closes."""
    with dial(port, sent) as connection:
        return rest(connection)
