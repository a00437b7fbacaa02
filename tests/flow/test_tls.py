"""TLS: all talk only to a server whose certificate is valid, trusted and names its host; else they say so, once."""

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

from queue_system import CertificateError, QueueConfig, QueueManager, QueueWorker, ServerUnreachableError
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, StartServer


def certify(folder: Path, host: str, *, days: int = 1) -> tuple[Path, Path]:
    """Make a certificate for a host, and its key; with fewer than no days, one that has expired."""
    key = folder / f"{host}.key.pem"
    certificate = folder / f"{host}.pem"
    request = folder / f"{host}.request.pem"
    names = folder / f"{host}.names"
    names.write_text(f"subjectAltName=DNS:{host}")
    openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", request,
        "-subj", f"/CN={host}",
    )  # fmt: skip
    openssl(
        "x509", "-req", "-in", request, "-signkey", key, "-days", str(days), "-extfile", names, "-out", certificate,
    )  # fmt: skip
    return certificate, key


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def encrypted(
    server: OwnServer, folder: Path, host: str, *, days: int = 1, knocks: list[object] | None = None
) -> Iterator[str]:
    """A TLS front of a server, with a certificate for a host; the URL under which `localhost` leads there.

    `knocks` grows with each connection.
    """
    certificate, key = certify(folder, host, days=days)
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
                if knocks is not None:
                    knocks.append(plain)
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


REFUSED = [
    (("another.example", 1, "its own"), r"[Mm]ismatch|not valid for"),
    (("localhost", -1, "its own"), r"expired"),
    (("localhost", 1, "another"), r"self.signed|unable to get"),
]


@pytest.mark.parametrize("way", ["blocking", "async"])
@pytest.mark.parametrize("certificate, why", REFUSED, ids=["name", "expired", "authority"])
def test_a_certificate_that_fails_is_told_and_not_tried_again(
    start_server: StartServer, tmp_path: Path, certificate: tuple[str, int, str], why: str, way: str
) -> None:
    host, days, trusted = certificate
    other, _ = certify(tmp_path, "other.example")
    knocks: list[object] = []
    with encrypted(start_server(tcp=True), tmp_path, host, days=days, knocks=knocks) as url:
        address = url if trusted == "its own" else f"{url.partition('?')[0]}?ssl_ca_certs={other}"
        config = QueueConfig(redis_url=address, max_connection_retries=3, logger=LineLogger())
        with pytest.raises(CertificateError, match=why) as caught:
            enqueue(QueueManager(config), way)
        assert "a certificate" in str(caught.value)
        assert not caught.value.outcome_unknown
        assert len(knocks) == 1


async def test_a_worker_does_not_start_where_a_certificate_fails(start_server: StartServer, tmp_path: Path) -> None:
    with encrypted(start_server(tcp=True), tmp_path, "another.example") as url:
        worker = QueueWorker(QueueConfig(redis_url=url, logger=LineLogger()))
        with pytest.raises(CertificateError):
            await worker.start()
        assert not worker.running
