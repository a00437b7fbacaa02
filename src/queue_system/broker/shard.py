"""One server under one prefix: all that leads to it, and what this process knows of it."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar, overload

from queue_system.broker.admission import admission
from queue_system.broker.aio_pool import AioPool
from queue_system.broker.commands import Commands
from queue_system.broker.connection import Endpoint
from queue_system.broker.protocol import Command, Group
from queue_system.broker.server import Server
from queue_system.broker.sync import SyncTransport
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import ServerError, ServerUnreachableError
from queue_system.metrics import LogThrottle
from queue_system.resilience import CircuitBreaker, get_breaker
from queue_system.resilience.circuits import BreakerParameters

T = TypeVar("T")

BREAKER: Final[BreakerParameters] = {"exceptions": (ServerUnreachableError,), "half_open_max_calls": 1}
"""What opens a shard's circuit breaker; one probe at a time tries whether the server is back."""

SERVER_BREAKER: Final = "queue_system.redis."
"""What the names of the shards' breakers begin with; a serial number follows."""

_OPEN_WHILE_REPLACED_S: Final = 2.0
"""How long the breaker rejects calls to a server that may be replaced before it lets one try."""
_NO_KEYWORDS: Final[Mapping[str, Any]] = {}

_serial = itertools.count(1)


class Shard:
    """A complete queue system, which a script never leaves: one server under one prefix.

    Opens nothing by itself. Thread-safe, and safe across a fork.

    Args:
        server: where it lies.
        commands: what can be asked of it, under its prefix.
        retries: how often a command is sent again after a lost connection, to a server that is always the same.
        patience_s: for how many s a command is sent again where another server may take its place.
        beat_silence_s: how long a silence, in s, the beats of workers bear.
    """

    def __init__(
        self, server: Server, commands: Commands, *, retries: int, beat_silence_s: float, patience_s: float = math.inf
    ) -> None:
        self.server = server
        self.route = server.route
        """Leads to the server in force."""
        self.commands = commands
        self.keys = commands.keys
        self.breaker_name = f"{SERVER_BREAKER}{next(_serial)}"
        self.breaker: CircuitBreaker = get_breaker(self.breaker_name, keep=False, **BREAKER)
        self.route.switched.append(lambda _: self.breaker.half_open())
        self.admission = ask = admission(commands.keys.prefix)
        """Asks whether the server can hold queues."""
        self.transport = SyncTransport(server.route, retries, patience_s=patience_s, admission=ask)
        self.beat_transport = self.transport
        """What beats travel on: it gives a silent connection up so early that a resend saves the lease."""
        if beat_silence_s < server.timeout:
            self.beat_transport = SyncTransport(server.route, 0, longest_s=beat_silence_s, admission=ask)
        self.aio_pool = AioPool(
            server.route, retries, lambda: self.breaker.is_open, patience_s=patience_s, admission=ask
        )
        self._open_since: float | None = None
        """Since when, on the monotonic clock, calls have found the breaker open where the server may be replaced."""
        self.confirmable: set[str] = set()
        """The durabilities of which the server has shown that it can confirm them."""
        self.outage = LogThrottle(1.0, SYSTEM_CLOCK)
        self.maintenance_outage = LogThrottle(10.0, SYSTEM_CLOCK)
        """They let through one line a second, or in ten, about trouble of the server, whichever part writes it."""

    def endpoint(self) -> Endpoint:
        """Return where the server in force is and how to connect to it; starts an embedded one."""
        return self.route()

    def prepare(self) -> None:
        """Do what may block: have a server at hand. Sentinels that do not answer yet may do so later.

        Raises:
            ServerError: none can be started, or the sentinels know no such service.
        """
        try:
            self.route()
        except ServerUnreachableError:
            if not self.route.moves:
                raise

    @overload
    def run(self, request: Command[T]) -> T: ...
    @overload
    def run(self, request: Group) -> list[Any]: ...
    def run(self, request: Command[Any] | Group) -> Any:
        """Run a command, or a group of them, from any thread, through the circuit breaker.

        Raises:
            CircuitOpenError: too many calls have failed recently; `retry_after` says when to try again.
            ServerError: typed; on ServerUnreachableError the outcome is unknown, and sending the command again is safe.
        """
        if self.route.moves and self.breaker.is_open:
            self._look_for_another_server()
        if isinstance(request, Group):
            return self.breaker.run(self.transport.run_many, (request.commands,), {"together": request.together})
        return self.breaker.run(self.transport.run_many, ((request,),), _NO_KEYWORDS)[0]

    @overload
    async def arun(self, request: Command[T]) -> T: ...
    @overload
    async def arun(self, request: Group) -> list[Any]: ...
    async def arun(self, request: Command[Any] | Group) -> Any:
        """Do what `run` does in a coroutine of any event loop; each loop has connections of its own."""
        run: Callable[..., Awaitable[list[Any]]] = self.aio_pool.run_many
        commands = request.commands if isinstance(request, Group) else (request,)
        if self.route.moves and self.breaker.is_open:
            with contextlib.suppress(ServerError):
                await self.route.acheck()
            self._try_again_soon()
        self.breaker.check()
        async with self.aio_pool.turn(commands):  # while it is waited for, other calls may open the breaker
            if isinstance(request, Group):
                return await self.breaker.run_async(run, (commands,), {"together": request.together})
            return (await self.breaker.run_async(run, (commands,), _NO_KEYWORDS))[0]

    def _look_for_another_server(self) -> None:
        """Ask where the server is now, which lets calls try again at once if it is elsewhere."""
        with contextlib.suppress(ServerError):
            self.route.check()
        self._try_again_soon()

    def _try_again_soon(self) -> None:
        """Let a call try every few seconds: a server that is replaced is back long before the breaker would let it."""
        now = SYSTEM_CLOCK.monotonic()
        if self._open_since is None:
            self._open_since = now
        elif now - self._open_since >= _OPEN_WHILE_REPLACED_S:
            self._open_since = None
            if self.breaker.is_open:
                self.breaker.half_open()

    def close(self) -> None:
        """Close the idle connections of this process's threads; the next call opens one."""
        self.transport.close()
        self.beat_transport.close()

    async def aclose(self) -> None:
        """Close this event loop's idle connections; those in use follow when the loop ends. The next call opens one."""
        await self.aio_pool.aclose()
