"""A primary, a replica and a sentinel for one test run, gone with their data at the end."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import redis

from queue_system.broker.embedded import find_server_binary
from queue_system.broker.embedded_supervisor import server_environment
from queue_system.errors import ServerError

_SERVICE: Final = "main"
_HOST: Final = "127.0.0.1"
_WITHIN_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.02
_DOWN_AFTER_MS: Final = 1000


class Sentinel:
    """Two servers and who says which of them is the primary.

    Each method waits until what it does has taken place, and raises ServerError if it does not within 30 s.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = find_server_binary()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        *self._ports, self._sentinel_port = _free_ports(3)
        self.url: Final = f"redis+sentinel://{_HOST}:{self._sentinel_port}/{_SERVICE}"
        """What a configuration of the test takes as its `redis_url`."""

    @property
    def primary_port(self) -> int:
        """The port of the primary, as the sentinel names it."""
        return int(self._ask(self._sentinel_port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", _SERVICE)[1])

    def start(self) -> None:
        """Start all."""
        first, second = self._ports
        for port in self._ports:
            self._run(port)
        self._ask(second, "REPLICAOF", _HOST, first)
        self._wait(lambda: self._follows(second), "the replica has no data")
        watch = [
            f"sentinel monitor {_SERVICE} {_HOST} {first} 1",
            f"sentinel down-after-milliseconds {_SERVICE} {_DOWN_AFTER_MS}",
            f"sentinel failover-timeout {_SERVICE} 5000",
        ]
        self._run(self._sentinel_port, watch)
        self._wait(self._is_whole, "the sentinel does not find the replica")

    def fail_over(self) -> None:
        """Let the replica become the primary, and the primary its replica, as an operator would: nothing is lost."""
        former = self.primary_port
        other = sum(self._ports) - former
        self._ask(former, "CLIENT", "PAUSE", 10_000, "WRITE")
        self._wait(lambda: self._follows(other), "the replica does not catch up")
        self._ask(self._sentinel_port, "SENTINEL", "FAILOVER", _SERVICE)
        self._wait(lambda: self.primary_port != former, "no other server became the primary")
        self._ask(former, "REPLICAOF", _HOST, other)
        self._ask(former, "CLIENT", "UNPAUSE")
        self._wait(self._is_whole, "the former primary does not follow")

    def kill_primary(self) -> None:
        """Kill the primary, wait until the replica has taken its place, and start what was killed as its replica."""
        former = self.primary_port
        killed = self._processes.pop(former)
        killed.kill()
        killed.wait()
        self._wait(lambda: self.primary_port != former, "no other server became the primary")
        self._run(former)
        self._ask(former, "REPLICAOF", _HOST, self.primary_port)
        self._wait(self._is_whole, "the former primary does not follow")

    def stop(self) -> None:
        """Kill all."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()

    def _run(self, port: int, watch: list[str] | None = None) -> None:
        folder = self._folder / str(port)
        folder.mkdir(exist_ok=True)
        settings = [f"port {port}", f"bind {_HOST}", f"dir {folder}"]
        settings += watch or ['save ""', "appendonly yes", "repl-diskless-sync-delay 0"]
        path = folder / "server.conf"
        path.write_text("\n".join([*settings, ""]), encoding="utf-8")
        command = [str(self._binary), str(path), *(["--sentinel"] if watch else [])]
        with (folder / "log").open("ab") as log:
            self._processes[port] = subprocess.Popen(  # noqa: S603 - the binary is the one of the embedded server
                command, stdout=log, stderr=log, start_new_session=True, env=server_environment()
            )
        self._wait(lambda: self._ask(port, "PING"), "a server does not start")

    def _ask(self, port: int, *words: str | int) -> Any:
        with contextlib.closing(redis.Redis(_HOST, port, socket_timeout=5, decode_responses=True)) as client:
            return client.execute_command(*words)

    def _follows(self, port: int) -> bool:
        told = self._ask(port, "INFO", "replication")
        if told["role"] != "slave" or told["master_link_status"] != "up":
            return False
        of_primary = self._ask(told["master_port"], "INFO", "replication")
        return bool(told["slave_repl_offset"] >= of_primary["master_repl_offset"])

    def _is_whole(self) -> bool:
        named = self.primary_port
        replicas = self._ask(self._sentinel_port, "SENTINEL", "REPLICAS", _SERVICE)
        known = [dict(zip(each[::2], each[1::2], strict=True)) if isinstance(each, list) else each for each in replicas]
        return self._follows(sum(self._ports) - named) and [each["flags"] for each in known] == ["slave"]

    def _wait(self, holds: Callable[[], object], problem: str) -> None:
        ends = time.monotonic() + _WITHIN_S
        while time.monotonic() < ends:
            with contextlib.suppress(redis.RedisError, OSError):
                if holds():
                    return
            time.sleep(_LOOK_EVERY_S)
        raise ServerError(f"sentinel for tests: {problem}; the logs are in {self._folder}")


@contextlib.contextmanager
def private_sentinel() -> Iterator[Sentinel]:
    """Run a primary, a replica and a sentinel in a folder of their own; stop them and remove their data at the end.

    Raises ServerError when they cannot be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="queue-system-"))
    with contextlib.ExitStack() as leaving:
        leaving.callback(shutil.rmtree, folder, ignore_errors=True)
        sentinel = Sentinel(folder)
        leaving.callback(sentinel.stop)
        sentinel.start()
        yield sentinel


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((_HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
