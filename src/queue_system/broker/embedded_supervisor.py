"""Keeps one server alive in a data directory until its last client has left. Runs by path, without the package.

Three lock files order everything. The kernel drops a lock when its last holder dies, so nothing survives a crash::

    clients.lock      shared by every client process for its life; exclusive for the supervisor once the last has left
    supervisor.lock   taken by the client that starts a supervisor, which inherits it and holds it for its life
    server.lock       taken by the supervisor and inherited by the server, so it is held exactly while a server lives

A server whose supervisor was killed goes on serving; the next supervisor waits on its `server.lock` instead of starting
a second one, and stops it over its socket when the last client leaves.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time

CLIENTS_LOCK = "clients.lock"
SUPERVISOR_LOCK = "supervisor.lock"
SERVER_LOCK = "server.lock"
SOCKET_NAME = "server.sock"
LOG_NAME = "server.log"

_FIRST_RESTART_DELAY_S = 0.1
_MAX_RESTART_DELAY_S = 5.0
_HEALTHY_AFTER_S = 5.0
_ASK_TIMEOUT_S = 1.0
_ASK_AGAIN_S = 0.05
_STOP_GRACE_S = 10.0

# Relative paths: they stay within the socket path limit and never reach a newer folder of the same name.
_SERVER_OPTIONS = (
    ("--port", "0"),
    ("--unixsocket", SOCKET_NAME),
    ("--unixsocketperm", "700"),
    ("--appendonly", "yes"),
    ("--appendfsync", "everysec"),
    ("--save", ""),
    ("--maxmemory-policy", "noeviction"),
    ("--daemonize", "no"),
    ("--protected-mode", "yes"),
)

# The wheel's server uses glibc's malloc, whose cache of 7 blocks a size is too small for what a script makes.
_MALLOC_TUNING = "glibc.malloc.tcache_count=2000"


def server_environment() -> dict[str, str]:
    """Return the environment in which a server runs; one that sets GLIBC_TUNABLES already keeps its own."""
    return {"GLIBC_TUNABLES": _MALLOC_TUNING, **os.environ}


def ask(socket_path: str, command: bytes) -> bytes:
    """Send one inline command and return the first line of the answer; empty when no server answers within a second."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ASK_TIMEOUT_S)
        try:
            connection.connect(socket_path)
            connection.sendall(command + b"\r\n")
            while b"\r\n" not in answer and (part := connection.recv(4096)):
                answer += part
        except OSError:
            return b""
    return answer.partition(b"\r\n")[0]


class ServerKeeper:
    """Starts the server in the current folder, and again whenever it ends, until `stop`."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._leaving = threading.Event()
        self._gone = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Keep a server alive; returns after `stop`, when none lives any more."""
        delay = 0.0
        while not self._leaving.wait(delay):
            started = time.monotonic()
            try:
                self._serve_once()
            except OSError as error:
                _log(f"cannot start {self._binary}: {error}")
            quick = time.monotonic() - started < _HEALTHY_AFTER_S
            delay = min(max(2 * delay, _FIRST_RESTART_DELAY_S), _MAX_RESTART_DELAY_S) if quick else 0.0
        try:
            os.close(_hold(SERVER_LOCK))
        except FileNotFoundError:
            _log("the data directory was deleted")
        self._gone.set()

    def stop(self) -> None:
        """Shut the server down with its data on disk and return when it is gone; one that hangs for 10 s is killed."""
        self._leaving.set()
        kill_at = time.monotonic() + _STOP_GRACE_S
        while True:
            ask(SOCKET_NAME, b"SHUTDOWN")
            if self._gone.wait(_ASK_AGAIN_S):
                return
            if self._process is not None and time.monotonic() > kill_at:
                self._process.kill()

    def _serve_once(self) -> None:
        lock = _hold(SERVER_LOCK)
        try:
            if self._leaving.is_set():
                return
            command = [self._binary, *(word for option in _SERVER_OPTIONS for word in option)]
            self._process = subprocess.Popen(  # noqa: S603 - found by us
                command, stdin=subprocess.DEVNULL, pass_fds=[lock], env=server_environment()
            )
        finally:
            os.close(lock)
        _log(f"server {self._process.pid} started")
        code = self._process.wait()
        if self._leaving.is_set():
            _log(f"server {self._process.pid} stopped: its last client has left")
        else:
            _log(f"server {self._process.pid} ended with code {code} while clients live; starting it again")


def main() -> None:
    """Supervise the data directory `argv[1]` with the server binary `argv[2]`, detached from the starting process."""
    data_dir, binary = sys.argv[1:]
    if os.fork():
        os._exit(0)
    # A service manager signals the whole group at once, while workers still need the server to settle their work.
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
    os.umask(0o077)
    os.chdir(data_dir)
    keeper = ServerKeeper(binary)
    threading.Thread(target=keeper.run, daemon=True).start()
    _hold(CLIENTS_LOCK)
    keeper.stop()


def _hold(name: str) -> int:
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _log(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} supervisor {os.getpid()}: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
