"""A server, a fleet, a nemesis and a history: what every run needs, its end included. Never judges the history."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from queue_system import QueueConfig
from queue_system.inspection.reading import read
from queue_system.inspection.status import status_flow
from tests.kit.servers import OwnServer
from tests.kit.waiting import holds_within
from tests.nemesis.faults import Nemesis
from tests.nemesis.fleet import Fleet
from tests.nemesis.history import Event, History, read_history
from tests.nemesis.producers import Order, Producer

PREFIX = "nemesis:"
_STOPPED_WITHIN_S = 40.0
_RECORDS_LAST_S = 86400.0


class Arena:
    """One run's place. Leaving it kills what still runs; the history stays in `folder`."""

    def __init__(
        self,
        folder: Path,
        *,
        lease_s: float,
        mutant: str = "",
        seed: int = 0,
        slots: int = 8,
        timeout_s: float = 2.0,
        progress_s: float = 10.0,
    ) -> None:
        self.history = folder / "history"
        self.server = OwnServer()
        self._pen = History(self.history, "nemesis")
        rerun_s = 1.5 * lease_s + 3.0
        self._pen.note(
            "info", "plan", lease_s=lease_s, progress_s=progress_s, rerun_s=rerun_s, seed=seed, mutant=mutant
        )
        config = {
            "redis_url": self.server.url,
            "queue_prefix": PREFIX,
            "lease_seconds": lease_s,
            "connection_timeout": timeout_s,
            "result_ttl": _RECORDS_LAST_S,
        }
        self._config = QueueConfig(redis_url=self.server.url, queue_prefix=PREFIX, connection_timeout=timeout_s)
        self.fleet = Fleet({"config": config, "worker": {"max_workers": slots}}, self.history, mutant)
        self.nemesis = Nemesis(self.server, self.fleet, self._pen, random.Random(f"{seed} nemesis"), lease_s)

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.close()
        self.server.close()
        self._pen.close()
        self._config.transport.close()

    def producer(self, name: str, seed: int = 0) -> Producer:
        """Make a producer; it is neither started nor closed here."""
        return Producer(name, self.server.url, PREFIX, self.history, seed=seed)

    def send(self, orders: list[Order]) -> None:
        """Send some orders, which must be answered."""
        with contextlib.closing(self.producer("sender")) as sender:
            if not all(sender.send(order) for order in orders):
                raise AssertionError("the server did not answer an enqueue before any fault")

    def events(self, what: str, kind: str, by: str = "") -> list[Event]:
        """Return what was noted so far of one kind."""
        found = read_history(self.history)
        return [event for event in found if (event.what, event.kind) == (what, kind) and by in ("", event.by)]

    def wait(self, holds: Callable[[], object], within_s: float) -> bool:
        """Wait until something holds that offers no event; tell whether it did in time."""
        return holds_within(holds, within_s)

    def start_workers(self, count: int) -> None:
        """Start workers and wait until they are ready."""
        for _ in range(count):
            self.fleet.start()
        if not self.wait(lambda: len(self.events("worker", "info")) >= count, 20.0):
            raise AssertionError(f"no {count} workers started; their logs lie beside {self.history}")

    def waiting(self) -> int:
        """Return how many items are ready, delayed or in flight, all read at one moment."""
        status = self._status()
        return int(status["total_items"] + status[f"{PREFIX}delayed"] + status[f"{PREFIX}running"])

    def in_flight(self) -> int:
        return int(self._status()[f"{PREFIX}running"])

    def records(self) -> dict[str, str]:
        with contextlib.closing(self.server.client()) as client:
            return _records(client)

    def drain(self, within_s: float) -> bool:
        """Wait until nothing is ready, delayed or in flight."""
        return self.wait(lambda: self.waiting() == 0, within_s)

    def _status(self) -> dict[str, Any]:
        return read(self._config.shard, status_flow(self._config.shard), retries=None)

    def finish(self, drained_within_s: float) -> list[Event]:
        """Heal, drain, stop the workers in order, note what the server holds, and return the whole history."""
        self.nemesis.heal()
        self.drain(drained_within_s)
        for worker in self.fleet.workers:
            if worker.up:
                self.nemesis.stop(worker)
        for worker in self.fleet.workers:
            worker.wait_end(_STOPPED_WITHIN_S)
        with contextlib.closing(self.server.client()) as client:
            self._pen.note("ok", "final", **read_server(client))
        return read_history(self.history)


def read_server(client: Any) -> dict[str, Any]:
    """Return all that the server holds. Callback items count apart, since they are no operations."""
    items: list[bytes] = []
    for key in client.smembers(f"{PREFIX}registry"):
        items += client.lrange(key, 0, -1)
    items += client.zrange(f"{PREFIX}delayed", 0, -1)
    for key in client.scan_iter(match=f"{PREFIX}inflight:*", count=1000):
        items += [value for token, value in client.hgetall(key).items() if not token.startswith(b"#")]
    callbacks = sum(b'"phase":' in item for item in items)
    counters = {name.decode(): int(value) for name, value in client.hgetall(f"{PREFIX}metrics").items()}
    dead_letters = {name: _dead_letters(client, name) for name in ("failures", "system_errors")}
    return {
        "records": _records(client),
        "waiting": len(items) - callbacks,
        "callbacks": callbacks,
        **dead_letters,
        "counters": counters,
    }


def _dead_letters(client: Any, name: str) -> list[list[str]]:
    """Return id, phase and type of error of each dead letter."""
    dead_letters = [msgspec.json.decode(dead_letter) for dead_letter in client.lrange(f"{PREFIX}{name}", 0, -1)]
    return [
        [dead_letter.get("operation_id", ""), dead_letter.get("phase", ""), dead_letter["error_type"]]
        for dead_letter in dead_letters
    ]


def _records(client: Any) -> dict[str, str]:
    records: dict[str, str] = {}
    keys = list(client.scan_iter(match=f"{PREFIX}operation:*", count=1000))
    for start in range(0, len(keys), 1000):
        page = keys[start : start + 1000]
        for key, record in zip(page, client.mget(page), strict=True):
            records[key.decode().removeprefix(f"{PREFIX}operation:")] = (record or b"").partition(b"\t")[0].decode()
    return records
