"""Runs commands on one asyncio connection, many in one round trip. Never decides what a reply means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from queue_system.broker.connection import Endpoint
from queue_system.broker.failures import is_transient, typed
from queue_system.broker.protocol import Command
from queue_system.broker.wire import AioWire, ErrorReply


class AioTransport:
    """One connection to one server, opened when needed and dropped at any error. For one task at a time."""

    def __init__(self, endpoint: Callable[[], Endpoint]) -> None:
        self._endpoint = endpoint
        self._wire: AioWire | None = None

    async def run(self, *commands: Command[Any], patience: float = 0.0) -> list[Any]:
        """Send commands together and return their parsed replies. `patience` is how long, in s, the server may block.

        Raises:
            QueueSystemError: typed; none, some or all of the commands were run. Sending them again is safe.
        """
        endpoint = self._endpoint()
        try:
            async with asyncio.timeout(endpoint.timeout + patience):
                replies = await self._exchange(endpoint, commands)
        except (RedisError, OSError, TimeoutError) as error:
            self.close()
            raise typed(error, endpoint.address) from error
        except BaseException:
            self.close()  # replies still to come would be read as those of the next command
            raise
        for reply in replies:
            if isinstance(reply, ErrorReply):
                if is_transient(reply):
                    self.close()  # such as READONLY: a fresh connection may lead to the new primary
                raise typed(reply, endpoint.address) from reply
        return [command.parse(reply) for command, reply in zip(commands, replies, strict=True)]

    def close(self) -> None:
        """Drop the connection; the next command opens a fresh one."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    async def _exchange(self, endpoint: Endpoint, commands: Sequence[Command[Any]]) -> list[Any]:
        if self._wire is None:
            self._wire = await endpoint.connect_aio()
        replies = await self._wire.exchange(b"".join([command.request() for command in commands]), len(commands))
        for i, reply in enumerate(replies):
            if isinstance(reply, ErrorReply) and str(reply).startswith("NOSCRIPT"):
                (replies[i],) = await self._wire.exchange(commands[i].request(by_text=True), 1)
        return replies
