"""Runs commands on one asyncio connection, many in one round trip. Never decides what a reply means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError

from queue_system.broker.connection import Endpoint
from queue_system.broker.failures import is_transient, typed
from queue_system.broker.protocol import Command


class AioTransport:
    """One connection to one server, opened when needed and dropped at any error. For one task at a time."""

    def __init__(self, endpoint: Callable[[], Endpoint]) -> None:
        self._endpoint = endpoint
        self._connection: AbstractConnection | None = None

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
            await self.close()
            raise typed(error, endpoint.address) from error
        except BaseException:
            await self.close()  # replies still to come would be read as those of the next command
            raise
        failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if failed is not None:
            if is_transient(failed):
                await self.close()  # such as READONLY: a fresh connection may lead to the new primary
            raise typed(failed, endpoint.address) from failed
        return [command.parse(reply) for command, reply in zip(commands, replies, strict=True)]

    async def close(self) -> None:
        """Drop the connection; the next command opens a fresh one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _exchange(self, endpoint: Endpoint, commands: Sequence[Command[Any]]) -> list[Any]:
        if self._connection is None:
            connection = await asyncio.to_thread(endpoint.aio_connection)
            await connection.connect()
            self._connection = connection
        connection = self._connection
        await connection.send_packed_command([command.request() for command in commands], check_health=False)
        replies = [await _read(connection) for _ in commands]
        for i, reply in enumerate(replies):
            if isinstance(reply, NoScriptError):
                await connection.send_packed_command([commands[i].request(by_text=True)], check_health=False)
                replies[i] = await _read(connection)
        return replies


async def _read(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True, disconnect_on_error=False)
    except (RedisError, OSError) as error:
        if not connection.is_connected:
            raise
        return error
