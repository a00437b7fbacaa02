"""One server, one key prefix, one journal, and worker processes over them. Never judges what it shows."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis

from queue_system import QueueConfig, QueueManager
from tests.faults.support.notes import VARIABLE
from tests.kit.configs import close
from tests.kit.journal import Journal
from tests.kit.processes import PythonProcess
from tests.kit.servers import OwnServer
from tests.kit.waiting import wait_until


class WorkerProcess(PythonProcess):
    """A worker in a process of its own."""

    def __init__(self, settings: dict[str, Any], journal: Path, log: Path) -> None:
        super().__init__(
            "-m", "tests.faults.support.worker_process", json.dumps(settings), log=log,
            variables={VARIABLE: str(journal)}, stdin=subprocess.PIPE if settings.get("standby") else None,
            stdout=subprocess.PIPE,
        )  # fmt: skip

    @property
    def incarnation(self) -> str:
        """The incarnation with which it started."""
        found = re.search(r"worker started incarnation=(\S+)", self.log)
        if found is None:
            raise AssertionError(f"the worker has not started; its log:\n{self.log}")
        return found[1]

    def begin(self) -> None:
        """Let a process that stands by begin to work."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended; whoever waits for it is told
                self.process.stdin.close()

    def wait_ready(self, line: str = "ready") -> None:
        """Wait until `start()` has returned in the process, or until it says something else."""
        if self._line() != line:
            raise AssertionError(f"the worker ended before it was ready; its log:\n{self.log}")

    def kill(self) -> None:
        super().kill()
        self.begin()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stop(self) -> dict[str, Any]:
        """End it by SIGTERM in order and return the metrics that it tells then."""
        self.send(signal.SIGTERM)
        line = self._line()
        if self.wait_end(20.0) != 0:
            raise AssertionError(f"the worker did not end in order; its log:\n{self.log}")
        metrics: dict[str, Any] = json.loads(line)
        return metrics

    def _line(self) -> str:
        return self.process.stdout.readline().strip() if self.process.stdout is not None else ""


class Bench:
    """What a fault test works with. Everything it starts ends with `close`."""

    def __init__(self, server: OwnServer, prefix: str, folder: Path) -> None:
        self.server = server
        self.prefix = prefix
        self.journal = Journal(folder / "journal")
        self.config = QueueConfig(redis_url=server.url, queue_prefix=prefix, connection_timeout=2.0)
        self.manager = QueueManager(self.config)
        self.client: redis.Redis = server.client()
        self._folder = folder
        self._workers: list[WorkerProcess] = []
        self._started = 0

    def start_worker(
        self, *, slots: int = 10, lease: float = 1.0, only_sleeps: bool = False, ready: bool = True,
        standby: bool = False, url: str | None = None, hooks: Mapping[str, Any] | None = None, **worker: Any
    ) -> WorkerProcess:  # fmt: skip
        """Start a worker process, at `url` if it is not the server's; with `ready=False` do not wait for its start.

        With `standby` it has imported everything and begins when it is told to. `hooks` are what it does to itself
        (`hooks.install`). `worker` goes to QueueWorker.
        """
        settings = {
            "config": {
                "redis_url": url or self.server.url,
                "queue_prefix": self.prefix,
                "lease_seconds": lease,
                "connection_timeout": 2.0,
            },
            "worker": {"max_workers": slots, **worker},
            "only_sleeps": only_sleeps,
            "standby": standby,
            "hooks": hooks or {},
        }
        self._started += 1
        process = WorkerProcess(settings, self.journal.path, self._folder / f"worker-{self._started}.log")
        self._workers.append(process)
        if ready and not standby:
            process.wait_ready()
        return process

    def enqueue(self, count: int, processor: Callable[..., Any], seconds: float, **options: Any) -> list[str]:
        """Enqueue operations that take `seconds` each and return their ids."""
        name = options.pop("name", processor.__name__)
        ids = [f"{name}-{i}" for i in range(count)]
        entities = [{"id": each, "seconds": seconds} for each in ids]
        answers = self.manager.enqueue_batch(entities, processor, operation_id=ids, **options)
        assert [answer["status"] for answer in answers] == ["queued"] * count
        return ids

    def wait_drained(self, within_s: float) -> float:
        """Wait until nothing is ready, delayed or in flight; return how many s that took."""

        def drained() -> bool:
            status = self.manager.get_queue_status()
            waiting = status["total_items"] + status[f"{self.prefix}delayed"] + status[f"{self.prefix}running"]
            return int(waiting) == 0

        try:
            return wait_until(drained, "everything settled", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.manager.get_queue_status()}\n{self.logs()}") from None

    def incarnations(self) -> set[str]:
        names: list[bytes] = self.client.execute_command("HKEYS", f"{self.prefix}workers")
        return {name.decode() for name in names}

    def wait_idle(self, workers: int, within_s: float = 3.0) -> set[str]:
        """Wait until so many workers block on their wake-up marker; return the ids of their connections."""
        wait_until(lambda: len(self.blocked()) == workers, f"{workers} workers are idle", within_s)
        return self.blocked()

    def blocked(self) -> set[str]:
        """Return the ids of the connections that block on a wake-up marker."""
        clients: list[dict[str, str]] = self.client.execute_command("CLIENT LIST")
        return {client["id"] for client in clients if client["cmd"] == "bzpopmin" and "b" in client["flags"]}

    def in_flight(self, incarnation: str) -> dict[int, str]:
        """Return what an incarnation holds: token to operation id."""
        held: dict[bytes, bytes] = self.client.execute_command("HGETALL", f"{self.prefix}inflight:{incarnation}")
        items = {int(token): value.partition(b"\n")[2] for token, value in held.items() if token.isdigit()}
        return {token: json.loads(item)["operation_id"] for token, item in items.items()}

    def all_in_flight(self) -> dict[int, str]:
        """Return what is in flight anywhere, dead incarnations included: token to operation id."""
        found: dict[int, str] = {}
        for key in self.client.scan_iter(match=f"{self.prefix}inflight:*", count=1000):
            found |= self.in_flight(key.decode().removeprefix(f"{self.prefix}inflight:"))
        return found

    def counter(self, name: str) -> int:
        return int(self.client.hget(f"{self.prefix}metrics", name) or 0)

    def letters(self, dead_letters: str) -> list[dict[str, Any]]:
        return [json.loads(letter) for letter in self.client.lrange(f"{self.prefix}{dead_letters}", 0, -1)]

    def logs(self) -> str:
        return "\n".join(f"{worker.pid}:\n" + "\n".join(worker.log.splitlines()[-30:]) for worker in self._workers)

    def close(self) -> None:
        """Kill what still runs, delete what is left in Redis, and close the connections."""
        for worker in self._workers:
            worker.kill()
        with contextlib.suppress(redis.ConnectionError):  # a test may leave its own server dead
            keys = list(self.client.scan_iter(match=f"{self.prefix}*", count=1000))
            for start in range(0, len(keys), 1000):  # one by one, each would wait for a disk
                self.client.unlink(*keys[start : start + 1000])
        self.client.close()
        close(self.config)
