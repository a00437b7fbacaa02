"""Runs commands on one asyncio connection, many in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from queue_system.broker.connection import Endpoint
from queue_system.broker.failures import is_of_replica, is_transient, leads_elsewhere, typed
from queue_system.broker.protocol import Command
from queue_system.broker.role import PRIMARY
from queue_system.broker.wire import AioWire, ErrorReply


@dataclass(frozen=True, slots=True)
class Request:
    """Commands that travel together, and the future of their replies if they have been sent."""

    commands: Sequence[Command[Any]]
    patience: float
    replies: asyncio.Future[list[Any]] | None


class AioTransport:
    """One connection to one server, opened when needed and dropped at any error. For one task at a time."""

    def __init__(self, endpoint: Callable[[], Endpoint], *, whole: bool = False) -> None:
        """With `whole`, the limit is one for a whole reply, as that of blocking connections is."""
        self._endpoint = endpoint
        self._whole = whole
        self._wire: AioWire | None = None

    async def run(self, *commands: Command[Any], patience: float = 0.0) -> list[Any]:
        """Send commands together and return their parsed replies, as `send` and `receive` do."""
        return await self.receive(self.send(commands, patience=patience))

    def send(self, commands: Sequence[Command[Any]], *, patience: float = 0.0) -> Request:
        """Send commands together at once, if there is a connection; `receive` must follow.

        `patience` is how long, in s, the server may block.
        """
        if self._wire is None or self._wire.is_closing:
            self._wire = None
            return Request(commands, patience, None)
        limit_s = self._endpoint().timeout + patience
        return Request(commands, patience, self._wire.send(_packed(commands), len(commands), limit_s))

    async def receive(self, request: Request) -> list[Any]:
        """Return the parsed replies. As long as bytes pass, nothing is given up.

        Raises:
            QueueSystemError: typed; none, some or all of the commands were run. Sending them again is safe.
        """
        endpoint = self._endpoint()
        try:
            replies = await self._exchange(endpoint, request)
        except (RedisError, OSError, TimeoutError) as error:
            self.close()
            raise typed(error, endpoint.address) from error
        except BaseException:
            self.close()  # replies still to come would be read as those of the next command
            raise
        for reply in replies:
            if isinstance(reply, ErrorReply):
                await self._learn(replies, reply, endpoint)
                raise typed(reply, endpoint.address) from reply
        return [command.parse(reply) for command, reply in zip(request.commands, replies, strict=True)]

    def close(self) -> None:
        """Drop the connection; the next command opens a fresh one."""
        wire = self._wire
        self._wire = None
        if wire is not None:
            wire.close()

    async def _exchange(self, endpoint: Endpoint, request: Request) -> list[Any]:
        commands = request.commands
        waiting = request.replies
        limit_s = endpoint.timeout + request.patience
        if waiting is None:
            async with asyncio.timeout(endpoint.timeout):
                self._wire = await endpoint.connect_aio(whole=self._whole)
            waiting = self._wire.send(_packed(commands), len(commands), limit_s)
        replies = await waiting
        for i, reply in enumerate(replies):
            if isinstance(reply, ErrorReply) and str(reply).startswith("NOSCRIPT") and self._wire is not None:
                (replies[i],) = await self._wire.send(commands[i].request(by_text=True), 1, limit_s)
        return replies

    async def _learn(self, replies: list[Any], first: ErrorReply, endpoint: Endpoint) -> None:
        """Learn from errors whether to keep the connection: a fresh one may lead to a new primary."""
        try:
            if is_of_replica(first) and self._wire is not None:
                (told,) = await self._wire.send(PRIMARY.request(), 1, endpoint.timeout)
                first.primary = PRIMARY.parse(told)
        except (OSError, TimeoutError):
            self.close()
        except BaseException:
            self.close()
            raise
        errors = [reply for reply in replies if isinstance(reply, ErrorReply)]
        if any(is_transient(error) or leads_elsewhere(error) for error in errors):
            self.close()


def _packed(commands: Sequence[Command[Any]]) -> bytes:
    return b"".join([command.request() for command in commands])
