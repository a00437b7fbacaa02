"""Answers probes over HTTP: is the process alive, is it ready, what does it count."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar

from queue_system.broker.commands import ping
from queue_system.config import QueueConfig
from queue_system.inspection.fleet import FleetReader, FleetStats
from queue_system.monitoring.health import BLOCKED_AFTER_S, WorkerHealth, longest_beat_s
from queue_system.monitoring.labels import events_of, place_of
from queue_system.monitoring.latest import Latest
from queue_system.resilience import in_daemon_thread
from queue_system.validation import check_flag, check_instance, check_seconds, check_text, refused, shown

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    from queue_system.monitoring.connections import BriefProtocol, sparing_handler
    from queue_system.monitoring.guard import Guard
except ImportError as error:
    raise ImportError("probes need Starlette and uvicorn: pip install 'redis-queue-system[web]'") from error

try:
    from queue_system.monitoring import collectors, prometheus
except ImportError:
    _has_metrics = False
else:
    _has_metrics = True

T = TypeVar("T")
Health = Callable[[], Sequence[WorkerHealth]]
_NO_STORE: Final = {"Cache-Control": "no-store"}
_STOP_WITHIN_S: Final = 5.0
_HIGHEST_PORT: Final = 65535


class _Probes:
    """The endpoints. What they ask of the server is asked in a thread, and waited for no longer than a second."""

    def __init__(self, config: QueueConfig, health: Health | None, blocked_after_s: float, *, fleet: bool) -> None:
        self._health: Health = health or list
        self._has_workers = health is not None
        self._limits = (blocked_after_s, longest_beat_s(config))
        self._server = Latest(partial(config.shard.transport.run, ping(), retries=1))
        self._fleet = Latest(FleetReader(config))
        self._tells_fleet = fleet
        self._place = place_of(config)

    async def live(self, _: Request) -> Response:
        """Return whether a restart would help; the server plays no part in it."""
        workers = self._health()
        return _verdict([f"worker {w.pid}: {why}" for w in workers for why in w.why_dead(*self._limits)], workers)

    async def ready(self, _: Request) -> Response:
        """Return whether the server answers and at least one worker here consumes."""
        workers = self._health()
        reasons = (await _answer(self._server))[1]
        if self._has_workers and not any(worker.consuming for worker in workers):
            reasons += [f"worker {w.pid}: {why}" for w in workers for why in w.why_idle()] or [
                "no worker is running here"
            ]
        return _verdict(reasons, workers)

    async def metrics(self, _: Request) -> Response:
        """Return all metrics in Prometheus's text format."""
        if not _has_metrics:
            return PlainTextResponse("metrics need: pip install 'redis-queue-system[prometheus]'\n", 501)
        found: list[Any] = [collectors.HealthCollector(self._health, self._place)]
        if self._tells_fleet:
            found.append(collectors.FleetCollector(self._fleet.get, self._place))
        body = await in_daemon_thread(prometheus.exposition, found)
        return Response(body, headers=_NO_STORE | {"Content-Type": prometheus.CONTENT_TYPE})

    async def status(self, _: Request) -> Response:
        """Return depths and ages, for autoscalers."""
        workers = [asdict(worker) for worker in self._health()]
        stats, reasons = await _answer(self._fleet)
        if stats is None:
            return JSONResponse({"status": "failing", "reasons": reasons, "processes": workers}, 503, _NO_STORE)
        return JSONResponse(_shown(stats) | {"processes": workers}, headers=_NO_STORE)


async def _answer(latest: Latest[T]) -> tuple[T | None, list[str]]:
    """Return the answer, or None and why there is none."""
    try:
        return await in_daemon_thread(latest.get), []
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
        return None, [f"{type(error).__name__}: {error}"]


def _verdict(reasons: Sequence[str], workers: Sequence[WorkerHealth]) -> Response:
    body = {"status": "failing" if reasons else "ok", "reasons": reasons, "workers": [asdict(w) for w in workers]}
    return JSONResponse(body, 503 if reasons else 200, _NO_STORE)


def _shown(stats: FleetStats) -> dict[str, Any]:
    queues: dict[str, Any] = {}
    for queue in stats.queues:
        shown = queues.setdefault(queue.name, {"depth": 0, "oldest_age_seconds": 0.0, "priorities": {}})
        age = queue.oldest_age_s or 0.0
        shown["depth"] += queue.depth
        shown["oldest_age_seconds"] = max(shown["oldest_age_seconds"], age)
        shown["priorities"][queue.priority] = {"depth": queue.depth, "oldest_age_seconds": age}
    return {
        "status": "ok",
        "status_time": stats.at,
        "total_items": sum(queue.depth for queue in stats.queues),
        "oldest_age_seconds": max((queue.oldest_age_s or 0.0 for queue in stats.queues), default=0.0),
        "queues": queues,
        "complete": stats.complete,
        "delayed": stats.delayed,
        "running": stats.running,
        "workers": stats.workers,
        "workers_alive": stats.alive,
        "dead_letters": stats.dead_letters,
        "resting": [asdict(rest) for rest in stats.resting],
        "metrics": events_of(stats.counters),
    }


def create_app(
    config: QueueConfig, health: Health | None, *, blocked_after: float = BLOCKED_AFTER_S, fleet: bool = True
) -> Starlette:
    """Return the app that serves `/livez`, `/readyz`, `/metrics` and `/status.json`.

    Args:
        config: the server whose fleet is reported on.
        health: returns the vital signs of the workers here, quickly, from any thread. None: no worker belongs here,
            as in a process that only reports on the fleet.
        blocked_after: for how long, in s, an event loop may be blocked before `/livez` fails.
        fleet: whether `/metrics` reports on the fleet, too.
    """
    check_instance("config", config, QueueConfig)
    check_seconds("blocked_after", blocked_after, above=True)
    probes = _Probes(config, health, blocked_after, fleet=check_flag("fleet", fleet))
    return Starlette(
        routes=[
            Route("/livez", probes.live),
            Route("/readyz", probes.ready),
            Route("/metrics", probes.metrics),
            Route("/status.json", probes.status),
        ]
    )


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _server(app: Starlette, allowed_hosts: Sequence[str]) -> _Server:
    return _Server(
        uvicorn.Config(
            Guard(app, allowed_hosts), http=BriefProtocol, log_config=None, access_log=False, lifespan="off", ws="none",
            server_header=False, proxy_headers=False, timeout_graceful_shutdown=1,
        )
    )  # fmt: skip


def _listen(address: str) -> socket.socket:
    host, colon, port = check_text("address", address, "HOST:PORT").rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > _HIGHEST_PORT:
        raise refused("address", "HOST:PORT", shown(address), "for example 127.0.0.1:9200")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=128)


async def serve(app: Starlette, address: str, allowed_hosts: Sequence[str] = ()) -> None:
    """Serve an app at `"HOST:PORT"` until cancelled.

    It is answered under addresses and names of a private network, and under `allowed_hosts`: others, which a page of
    another site may have led here, are refused. `*.example.org` stands for all names below that.

    Raises:
        OSError: the address is not free, or is not one of this machine.
    """
    server = _server(app, allowed_hosts)
    serving = asyncio.create_task(server.serve(sockets=[_listen(address)]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving


class ProbeServer:
    """Serves an app from a thread with its own event loop, so that it answers while a processor blocks another."""

    def __init__(self, app: Starlette, address: str, allowed_hosts: Sequence[str] = ()) -> None:
        """Listen at `"HOST:PORT"`; port 0 is a free one. What `allowed_hosts` are, `serve` says.

        Raises OSError when the address is not free, or is not one of this machine.
        """
        self._socket = _listen(address)
        self._server = _server(app, allowed_hosts)
        self.port: int = self._socket.getsockname()[1]
        """The port that it listens at."""
        self._thread = threading.Thread(target=self._serve, name="queue-system-probes", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.should_exit = True
        self._thread.join(_STOP_WITHIN_S)

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(sparing_handler())
            runner.run(self._server.serve(sockets=[self._socket]))
