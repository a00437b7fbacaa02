"""Runs commands on one asyncio connection, many in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from queue_system.broker.connecting import HEEDED_EVERY_S
from queue_system.broker.connection import Endpoint
from queue_system.broker.failures import is_of_replica, leads_elsewhere, typed
from queue_system.broker.protocol import Command
from queue_system.broker.role import PRIMARY
from queue_system.broker.routes import Route, RouteChangedError
from queue_system.broker.wire import AioWire, ErrorReply


@dataclass(frozen=True, slots=True)
class Request:
    """Commands that travel together, and the future of their replies if they have been sent."""

    commands: Sequence[Command[Any]]
    patience: float
    replies: asyncio.Future[list[Any]] | None


class AioTransport:
    """One connection to the server that a route leads to, opened when needed and dropped at any error.

    For one task at a time.
    """

    def __init__(self, route: Route, *, whole: bool = False) -> None:
        """With `whole`, the limit is one for a whole reply, as that of blocking connections is."""
        self._route = route
        self._whole = whole
        self._wire: AioWire | None = None
        self._endpoint: Endpoint | None = None
        """Where the connection leads."""
        self._connecting: asyncio.Task[AioWire] | None = None

    async def run(self, *commands: Command[Any], patience: float = 0.0) -> list[Any]:
        """Send commands together and return their parsed replies, as `send` and `receive` do."""
        return await self.receive(self.send(commands, patience=patience))

    def send(self, commands: Sequence[Command[Any]], *, patience: float = 0.0) -> Request:
        """Send commands together at once, if there is a connection; `receive` must follow.

        `patience` is how long, in s, the server may block.
        """
        wire = self._wire
        if wire is None or wire.is_closing or (self._route.moves and not self._route.holds(self._endpoint)):
            return Request(commands, patience, None)
        limit_s = self._route().timeout + patience
        return Request(commands, patience, wire.send(_packed(commands), len(commands), limit_s))

    async def receive(self, request: Request) -> list[Any]:
        """Return the parsed replies. As long as bytes pass, nothing is given up.

        Raises:
            QueueSystemError: typed; none, some or all of the commands were run. Sending them again is safe.
        """
        route = self._route
        try:
            replies = await self._exchange(request)
        except (RedisError, OSError, TimeoutError) as error:
            self.close()
            route.failed(error)
            raise typed(error, self._address) from error
        except BaseException:
            self.close()  # replies still to come would be read as those of the next command
            raise
        for reply in replies:
            if isinstance(reply, ErrorReply):
                await self._learn(replies, reply)
                raise typed(reply, self._address) from reply
        return [command.parse(reply) for command, reply in zip(request.commands, replies, strict=True)]

    def close(self) -> None:
        """Drop the connection; the next command opens a fresh one."""
        wire = self._wire
        self._wire = None
        if wire is not None:
            wire.close()

    def leave(self) -> None:
        """Drop a connection to another server than the one in force; who waits for an answer on it sends again."""
        if self._endpoint is self._route():
            return
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.fail(RouteChangedError("another server is the primary now"))
            self.close()

    @property
    def _address(self) -> str:
        """Where the connection leads, for messages."""
        return self._route.address if self._endpoint is None else self._endpoint.address

    async def _exchange(self, request: Request) -> list[Any]:
        commands = request.commands
        waiting = request.replies
        endpoint = self._endpoint
        if waiting is None:
            endpoint = await self._route.acheck()
            wire = await self._connected(endpoint)
            waiting = wire.send(_packed(commands), len(commands), endpoint.timeout + request.patience)
        if self._route.moves:
            await self._heeding(waiting, blocks=request.patience > 0)
        replies = await waiting
        for i, reply in enumerate(replies):
            if isinstance(reply, ErrorReply) and str(reply).startswith("NOSCRIPT") and self._wire is not None:
                limit_s = self._route().timeout + request.patience
                (replies[i],) = await self._wire.send(commands[i].request(by_text=True), 1, limit_s)
        return replies

    async def _learn(self, replies: list[Any], first: ErrorReply) -> None:
        """Note from errors whether to keep the connection: a fresh one may lead to a new primary."""
        try:
            if is_of_replica(first) and self._wire is not None:
                (told,) = await self._wire.send(PRIMARY.request(), 1, self._route().timeout)
                first.primary = PRIMARY.parse(told)
        except (RedisError, OSError, TimeoutError):  # such as that the route has changed meanwhile
            self.close()
        except BaseException:
            self.close()
            raise
        errors = [reply for reply in replies if isinstance(reply, ErrorReply)]
        if any(self._route.failed(error) or leads_elsewhere(error) for error in errors):
            self.close()

    async def _connected(self, endpoint: Endpoint) -> AioWire:
        """Return the connection to a server: the one that there is, or a fresh one."""
        wire = self._wire
        if wire is not None and not wire.is_closing and self._endpoint is endpoint:
            return wire
        self.close()
        self._endpoint = endpoint
        if not self._route.moves:
            async with asyncio.timeout(endpoint.timeout):
                self._wire = await endpoint.connect_aio(whole=self._whole)
            return self._wire
        loop = asyncio.get_running_loop()
        self._route.accompany(self, loop)
        self._connecting = connecting = loop.create_task(self._connect(endpoint))
        try:
            await self._heeding(connecting, blocks=False)
        except BaseException:
            connecting.cancel()
            raise
        finally:
            self._connecting = None
        if connecting.cancelled():
            raise RouteChangedError(f"{endpoint.address} is no longer the primary")
        self._wire = connecting.result()
        return self._wire

    async def _connect(self, endpoint: Endpoint) -> AioWire:
        async with asyncio.timeout(endpoint.timeout):
            return await endpoint.connect_aio(whole=self._whole)

    async def _heeding(self, waiting: asyncio.Future[Any], *, blocks: bool) -> None:
        """Wait for what the server must do, and see to it meanwhile that it still is the one in force.

        A silence raises doubts, unless the server `blocks` because it was asked to.
        """
        while not (await asyncio.wait((waiting,), timeout=HEEDED_EVERY_S))[0]:
            if not blocks:
                self._route.doubt()
            await self._route.acheck()  # if it is another one, `leave` is called


def _packed(commands: Sequence[Command[Any]]) -> bytes:
    return b"".join([command.request() for command in commands])
