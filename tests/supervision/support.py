"""Worker processes to signal, kill and read the log of, and their operations' journal. Never runs a worker itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import redis

from queue_system import QueueManager
from tests.kit.journal import Journal
from tests.kit.processes import PythonProcess, children_of, descendants_of, is_alive
from tests.kit.servers import OwnServer
from tests.kit.waiting import wait_until
from tests.supervision import app

TARGET = "tests.supervision.app:config"
LONG_S = 60.0


class Program(PythonProcess):
    """A worker that was started like a command, with its log."""

    def __init__(self, folder: Path, settings: dict[str, Any], **variables: str) -> None:
        arguments = ("-m", "tests.supervision.start", json.dumps(settings))
        self.folder = folder
        super().__init__(*arguments, log=folder / "log", variables=variables, cwd=folder, start_new_session=True)

    def lines(self, message: str) -> list[str]:
        """The lines with a message, at their beginning or behind level and logger."""
        return [line for line in self.log.splitlines() if f": {message}" in f": {line}"]

    def wait_for(self, message: str, times: int = 1) -> list[str]:
        """Wait for lines that begin with a message."""
        wait_until(lambda: len(self.lines(message)) >= times, f"{message!r}, {times} times, in the log:\n{self.log}")
        return self.lines(message)

    def ends(self, within_s: float = 15.0) -> int:
        return self.wait_end(within_s)

    def leaves(self, within_s: float = 15.0) -> int:
        """Ask it to leave, and return the exit code."""
        self.send(signal.SIGTERM)
        return self.ends(within_s)

    def children(self) -> list[int]:
        """The ids of the worker processes that it has started, and that run."""
        return [pid for pid in children_of(self.process.pid) if is_alive(pid)]

    def wait_for_children(self, count: int) -> list[int]:
        wait_until(lambda: len(self.children()) == count, f"{count} children run")
        return self.children()

    def close(self) -> None:
        pids = list(descendants_of(self.pid))
        self.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Bench:
    """A queue on the test's prefix, and programs that work on it."""

    def __init__(self, server: OwnServer, prefix: str, folder: Path, client: redis.Redis, queue: QueueManager) -> None:
        self._folder, self._stack = folder, contextlib.ExitStack()
        self.variables = {"URL": server.url, "PREFIX": prefix}
        self.prefix, self.client, self.queue = prefix, client, queue
        self.journal = folder / "journal"

    def start(self, variables: dict[str, str] | None = None, **settings: Any) -> Program:
        """Start a program; without a target, that of this application."""
        folder = self._folder / f"program-{len(list(self._folder.iterdir()))}"
        folder.mkdir()
        program = Program(folder, {"target": TARGET, **settings}, **{**self.variables, **(variables or {})})
        self._stack.callback(program.close)
        return program

    def enqueue(self, count: int, processor: Any = app.work, first: int = 0, **entity: Any) -> None:
        """Enqueue so many operations, numbered from `first`."""
        entities = [{"seconds": 0.0, "journal": str(self.journal), **entity, "n": first + i} for i in range(count)]
        self.queue.enqueue_batch(entities, processor)

    def noted(self, event: str) -> Counter[int]:
        """How often each operation has noted an event."""
        return Counter(number for number, _ in self.notes(event))

    def notes(self, event: str) -> list[tuple[int, int]]:
        """The numbers of operations that noted an event, with the process in which they did."""
        return [(int(entry.operation_id), entry.pid) for entry in Journal(self.journal).entries(event)]

    def wait_for_notes(self, event: str, count: int) -> None:
        """Wait until so many operations have noted an event."""
        wait_until(lambda: len(self.notes(event)) >= count, f"{count} operations note {event!r}")

    def waiting(self) -> list[dict[str, Any]]:
        lists: Any = self.client.smembers(f"{self.prefix}registry")
        return [json.loads(item) for each in lists for item in self.items(each)]

    def items(self, key: bytes) -> list[bytes]:
        items: Any = self.client.lrange(key.decode(), 0, -1)
        return list(items)

    def in_flight(self) -> list[bytes]:
        return list(self.client.scan_iter(match=f"{self.prefix}inflight:*", count=1000))

    def close(self) -> None:
        self._stack.close()
