"""What the tests of web applications share: programs in processes of their own, and HTTP to them. Tests nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from tests.kit.servers import OwnServer, free_port, listens
from tests.kit.source import ROOT, SRC
from tests.kit.waiting import wait_until

__all__ = ["EXAMPLES", "free_port", "program", "serving", "worker"]

EXAMPLES = ROOT / "examples"


@contextlib.contextmanager
def program(
    *arguments: str,
    cwd: Path,
    server: OwnServer,
    variables: Mapping[str, str] | None = None,
    code: int = 0,
    says: str = "",
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program whose queue is on `server`; ended by SIGTERM, it must leave with `code` and have said `says`."""
    environment = {**os.environ, "PYTHONPATH": str(SRC), "QUEUE_SYSTEM_REDIS_URL": server.url, **(variables or {})}
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            [sys.executable, *arguments], cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield process
            process.terminate()
            assert process.wait(10) == code
            output.seek(0)
            assert says in output.read().decode()
        finally:
            process.kill()
            process.wait()
            output.seek(0)
            print(output.read().decode())  # noqa: T201 - pytest shows it when a test fails


@contextlib.contextmanager
def worker(target: str, cwd: Path, server: OwnServer, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process of the configuration `module:name`."""
    with program("-m", "queue_system", "worker", target, cwd=cwd, server=server, variables=variables) as process:
        yield process


@contextlib.contextmanager
def serving(
    *arguments: str, port: int, cwd: Path, server: OwnServer, variables: Mapping[str, str] | None = None
) -> Iterator[httpx.Client]:
    """A program that serves HTTP on a port of 127.0.0.1, and a client for it.

    Uvicorn raises the signal again once it has shut down; the servers of Flask and Django leave it to the system.
    """
    ended = "Application shutdown complete" if "uvicorn" in arguments else ""
    with program(*arguments, cwd=cwd, server=server, variables=variables, code=-signal.SIGTERM, says=ended) as process:
        wait_until(lambda: process.poll() is not None or listens(port), "the service listens")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15) as client:
            yield client
