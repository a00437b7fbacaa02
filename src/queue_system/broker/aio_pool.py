"""Runs commands in coroutines; each event loop has connections of its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, Final, TypeVar

from queue_system.broker.admission import ask_admission
from queue_system.broker.aio import AioTransport
from queue_system.broker.connection import VERSION_CHECK
from queue_system.broker.failures import leads_elsewhere
from queue_system.broker.protocol import Command
from queue_system.broker.routes import Route
from queue_system.broker.wire import ErrorReply
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import CertificateError, ServerError, ServerUnreachableError
from queue_system.resilience.backoff import backoff_delay
from queue_system.resilience.threads import in_daemon_thread

T = TypeVar("T")

_MOST: Final = 32
"""How many connections of one event loop are kept, and used at once; blocking commands come on top."""


class AioPool:
    """Connections for the async twins. They are opened when needed and closed with the event loop that uses them."""

    def __init__(
        self,
        route: Route,
        retries: int,
        hopeless: Callable[[], bool],
        *,
        patience_s: float = math.inf,
        admission: Command[None] = VERSION_CHECK,
    ) -> None:
        """`hopeless` says whether other calls have shown that sending again is of no use.

        A command is sent again up to `retries` times; where the server may be replaced, for `patience_s`. `admission`
        is asked on the first connection.
        """
        self._route = route
        self._patience_s = patience_s
        self._admission = admission
        self._hopeless = hopeless
        self._retries = retries
        self._loops: dict[asyncio.AbstractEventLoop, _Idle] = {}
        self._checked = False

    @contextlib.asynccontextmanager
    async def turn(self, commands: Sequence[Command[Any]]) -> AsyncIterator[None]:
        """Wait until commands may use a connection, and keep it for all their resends; blocking ones need not wait."""
        idle = await self._idle()
        if any(command.blocks for command in commands):
            yield
            return
        async with idle.turns:
            yield

    async def run_many(self, commands: Sequence[Command[T]], *, together: bool = False) -> list[T]:
        """Run commands one after the other, in a `turn`; on a lost connection send again, as SyncTransport does.

        With `together`, all are sent at once on one connection, and all again.

        Raises:
            QueueSystemError: typed, after at most `retries` resends; those before the failed command were run.
        """
        replies: list[T] = []
        attempt = 0
        lost = False
        started = SYSTEM_CLOCK.monotonic()
        ends = started + min([command.resend_within_s for command in commands], default=math.inf)
        while True:
            due = commands if together else commands[len(replies) : len(replies) + 1]
            try:
                replies += await self._exchange(due)
            except ServerError as error:
                error.answers = (*replies, *[None] * (len(commands) - len(replies)))
                if not self._may_help(error):
                    if lost:
                        error.after_lost_answer()
                    raise
                lost = lost or not isinstance(error.__cause__, ErrorReply)
                if self._is_over(attempt, started) or SYSTEM_CLOCK.monotonic() > ends:
                    raise
                if attempt > 0:
                    await asyncio.sleep(backoff_delay(attempt - 1, 0.05, self._route.longest_wait_s))
                attempt += 1
            if len(replies) == len(commands):
                return replies

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop."""
        idle = self._loops.pop(asyncio.get_running_loop(), None)
        if idle is not None:
            await idle.keeper.aclose()

    def _may_help(self, error: ServerError) -> bool:
        """Return whether sending again may help: where the server is replaced, also if it was cut off from others."""
        if isinstance(error, CertificateError):
            return False
        elsewhere = self._route.moves and leads_elsewhere(error.__cause__)
        return elsewhere or isinstance(error, ServerUnreachableError)

    def _is_over(self, attempt: int, started: float) -> bool:
        """Return whether enough was tried: a number of times, or for a time where the server may be replaced."""
        if self._route.moves:
            return SYSTEM_CLOCK.monotonic() - started >= self._patience_s
        return attempt >= self._retries or self._hopeless()

    async def _exchange(self, commands: Sequence[Command[T]]) -> list[T]:
        idle = await self._idle()
        transport = idle.transports.pop() if idle.transports else AioTransport(self._route, whole=True)
        try:
            if not self._checked:
                await ask_admission(transport, self._admission)
                self._checked = True
            return await transport.run(*commands)
        except ServerError as error:
            if isinstance(error, ServerUnreachableError) or leads_elsewhere(error.__cause__):
                idle.close()  # the others lead to where this one did
            raise
        finally:
            idle.put(transport)

    async def _prepare(self) -> None:
        """Have a server at hand, which may have to be started, or asked for."""
        try:
            await in_daemon_thread(self._route)
        except ServerUnreachableError:
            if not self._route.moves:
                raise

    async def _idle(self) -> _Idle:
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            await self._prepare()
        idle = self._loops.get(loop)
        if idle is None:
            for ended in [known for known in list(self._loops) if known.is_closed()]:
                self._loops.pop(ended, None)
            idle = self._loops[loop] = _Idle()
            await idle.keeper.asend(None)
        return idle


class _Idle:
    """The idle connections of one event loop, which closes them when it shuts its async generators down."""

    def __init__(self) -> None:
        self.transports: list[AioTransport] = []
        self.turns = asyncio.Semaphore(_MOST)
        self.closed = False
        self.keeper = self._keep()

    def put(self, transport: AioTransport) -> None:
        """Keep a connection for the next command, unless there are enough."""
        if self.closed or len(self.transports) >= _MOST:
            transport.close()
        else:
            self.transports.append(transport)

    def close(self) -> None:
        """Close what is idle."""
        while self.transports:
            self.transports.pop().close()

    async def _keep(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.closed = True
            self.close()
            await asyncio.sleep(0)  # lets the loop see them closed
