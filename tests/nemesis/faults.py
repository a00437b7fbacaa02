"""The nemesis: inflicts faults on workers and server, and heals them. Never judges what comes of it.

Server faults come one at a time, since a server that is down or paused cannot be told anything; worker faults overlap
with all others.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Final

from tests.kit.servers import OwnServer
from tests.nemesis.fleet import Fleet, Worker
from tests.nemesis.history import History

_MEAN_GAP_S: Final = 0.7
_CALM: Final = 0.04
"""How often a gap is a long one, in which the promises that have a time limit can be judged."""
_CALM_S: Final = (9.0, 13.0)
_SHORT: Final = 0.3
"""The longest short freeze or pause of writes, in leases: nobody may lose a lease by it."""
_WEIGHTS: Final = {
    "kill": 3.0,
    "freeze_long": 2.0,
    "freeze_short": 2.0,
    "stop": 2.0,
    "client_kill": 3.0,
    "script_flush": 2.0,
    "server_kill": 1.5,
    "pause": 1.0,
    "pause_writes": 1.0,
}


class Nemesis:
    """Inflicts faults from one thread. Each is noted before it begins and after it is over."""

    def __init__(self, server: OwnServer, fleet: Fleet, pen: History, rng: random.Random, lease_s: float) -> None:
        self._server = server
        self._fleet = fleet
        self._pen = pen
        self._rng = rng
        self._lease_s = lease_s
        self._serial = itertools.count(1)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._server_troubled = False

    def play(self, seconds: float) -> None:
        """Inflict faults at random for so long; some may not be healed then."""
        over = time.monotonic() + seconds
        strike_at = time.monotonic() + self._rng.uniform(0.5, 1.5)  # the first workers are about to start
        while (now := time.monotonic()) < over:
            self._do_due(now)
            if now >= strike_at:
                self._strike()
                strike_at = now + self._gap()
            nearest = min(strike_at, over, self._due[0][0] if self._due else over)
            time.sleep(max(0.0, nearest - time.monotonic()))

    def heal(self) -> None:
        """Wait until every fault is healed at its own time."""
        while self._due:
            time.sleep(max(0.0, self._due[0][0] - time.monotonic()))
            self._do_due(time.monotonic())
        self._pen.note("ok", "heal")

    def kill(self, worker: Worker) -> None:
        with self._fault("kill", worker.name):
            worker.kill()

    def stop(self, worker: Worker) -> None:
        """Ask a worker to end in order; it notes itself when it has."""
        with self._fault("stop", worker.name):
            worker.ask_to_stop()

    def freeze(self, worker: Worker, seconds: float) -> None:
        """Freeze a worker; `heal` or `play` thaws it."""
        over = self._begin("freeze", worker.name)
        worker.freeze()

        def thaw() -> None:
            worker.thaw()
            over()

        self._later(seconds, thaw)

    def pause(self, seconds: float, *, writes_only: bool = False) -> None:
        """Let the server answer nothing, or no write."""
        over = self._begin("pause_writes" if writes_only else "pause", "server")
        with contextlib.closing(self._server.client()) as client:
            client.execute_command("CLIENT", "PAUSE", int(seconds * 1000), "WRITE" if writes_only else "ALL")
        self._trouble_server(seconds + 0.02, over)

    def kill_server(self, down_s: float) -> None:
        """Kill the server; `heal` or `play` starts it again."""
        over = self._begin("server_kill", "server")
        self._server.kill()

        def restart() -> None:
            self._server.start()
            over()

        self._trouble_server(down_s, restart)

    def kill_clients(self) -> None:
        """Let the server drop every connection."""
        with self._fault("client_kill", "server"), contextlib.closing(self._server.client()) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")

    def flush_scripts(self) -> None:
        """Let the server forget every script."""
        with self._fault("script_flush", "server"), contextlib.closing(self._server.client()) as client:
            client.execute_command("SCRIPT", "FLUSH")

    @contextlib.contextmanager
    def cut_long_replies(self, longest: int) -> Iterator[None]:
        """Let the server run commands but drop the connection instead of sending a reply above so many bytes."""
        with self._fault("cut", "server"), contextlib.closing(self._server.client()) as client:
            client.config_set("client-output-buffer-limit", f"normal {longest} 0 0")
            yield
            client.config_set("client-output-buffer-limit", "normal 0 0 0")

    def _gap(self) -> float:
        rng = self._rng
        return rng.uniform(*_CALM_S) if rng.random() < _CALM else rng.expovariate(1 / _MEAN_GAP_S)

    def _strike(self) -> None:
        rng, lease_s = self._rng, self._lease_s
        match rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]:
            case "kill" if victims := [worker for worker in self._fleet.workers if worker.alive]:
                self.kill(rng.choice(victims))
                self._later(rng.uniform(0.1, 0.8), self._replace)
            case "stop" if victims := [worker for worker in self._fleet.workers if worker.up]:
                self.stop(rng.choice(victims))
                self._later(rng.uniform(0.1, 0.8), self._replace)
            case "freeze_long" if victims := [worker for worker in self._fleet.workers if worker.up]:
                self.freeze(rng.choice(victims), rng.uniform(1.4, 2.0) * lease_s)
            case "freeze_short" if victims := [worker for worker in self._fleet.workers if worker.up]:
                self.freeze(rng.choice(victims), rng.uniform(0.02, _SHORT) * lease_s)
            case name if not self._server_troubled:
                self._strike_server(name)

    def _strike_server(self, name: str) -> None:
        match name:
            case "client_kill":
                self.kill_clients()
            case "script_flush":
                self.flush_scripts()
            case "server_kill":
                self.kill_server(self._rng.uniform(0.05, 1.2))
            case "pause":
                self.pause(self._rng.uniform(0.1, 1.3) * self._lease_s)
            case "pause_writes":
                self.pause(self._rng.uniform(0.02, _SHORT) * self._lease_s, writes_only=True)

    def _replace(self) -> None:
        self._fleet.start()

    def _begin(self, fault: str, target: str) -> Callable[[], None]:
        number = next(self._serial)
        self._pen.note("invoke", "fault", n=number, fault=fault, target=target)
        return lambda: self._pen.note("ok", "fault", n=number, fault=fault, target=target)

    @contextlib.contextmanager
    def _fault(self, fault: str, target: str) -> Iterator[None]:
        over = self._begin(fault, target)
        yield
        over()

    def _trouble_server(self, seconds: float, then: Callable[[], None]) -> None:
        self._server_troubled = True

        def heal() -> None:
            then()
            self._server_troubled = False

        self._later(seconds, heal)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._serial), action))

    def _do_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()
