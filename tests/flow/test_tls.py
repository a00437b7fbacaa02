"""TLS: producers, in threads and coroutines, talk only to a server whose certificate names its host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_system import QueueConfig, QueueManager, ServerUnreachableError
from tests.kit.servers import OwnServer, StartServer


@contextlib.contextmanager
def encrypted(server: OwnServer, folder: Path, host: str) -> Iterator[str]:
    """A TLS front of a server, with a certificate for a host; the URL under which `localhost` leads there."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-keyout", key, "-out", certificate, "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    opened: list[socket.socket] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a client that does not trust the certificate
            front = context.wrap_socket(plain, server_side=True)
            back = socket.create_connection(("127.0.0.1", server.port))
            opened.extend((front, back))
            threading.Thread(target=pump, args=(back, front), daemon=True).start()
            pump(front, back)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                opened.append(plain)
                serve(plain)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield f"rediss://localhost:{listener.getsockname()[1]}/0?ssl_ca_certs={certificate}"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        for connection in opened:
            connection.close()


def enqueue(queue: QueueManager, way: str) -> object:
    call = asyncio.run(queue.aenqueue({}, "shop.pack")) if way == "async" else queue.enqueue({}, "shop.pack")
    queue.config.transport.close()
    return call["status"]


@pytest.mark.parametrize("way", ["blocking", "async"])
@pytest.mark.parametrize("host", ["localhost", "another.example"])
def test_the_host_name_of_a_certificate_is_checked(
    start_server: StartServer, tmp_path: Path, host: str, way: str
) -> None:
    with encrypted(start_server(tcp=True), tmp_path, host) as url:
        queue = QueueManager(QueueConfig(redis_url=url, max_connection_retries=0))
        if host == "localhost":
            assert enqueue(queue, way) == "queued"
        else:
            with pytest.raises(ServerUnreachableError, match=r"[Mm]ismatch|not valid for"):
                enqueue(queue, way)
