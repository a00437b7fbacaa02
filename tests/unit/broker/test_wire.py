"""How long an exchange may take: as long as bytes pass, and no longer than the limit in silence."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from queue_system.broker.wire import AioWire

LIMIT_S = 0.3
STEP_S = 0.02
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def wired(peer: Peer) -> AsyncIterator[AioWire]:
    """Connect a wire to a peer of small buffers."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    listener.bind(("127.0.0.1", 0))
    handlers: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def handle() -> None:
            with contextlib.closing(writer):
                await peer(reader, writer)

        handlers.add(asyncio.create_task(handle()))

    async with await asyncio.start_server(serve, sock=listener, limit=16384):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        wire = AioWire(writer)
        try:
            yield wire
        finally:
            wire.close()
            for handler in handlers:
                handler.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)


async def test_a_reply_that_comes_slowly_is_read_to_its_end() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        for byte in b"$20\r\n%b\r\n" % (b"x" * 20):
            writer.write(bytes([byte]))
            await asyncio.sleep(STEP_S)  # the slowness itself

    async with wired(drip) as wire:
        started = asyncio.get_running_loop().time()
        assert await wire.send(b"PING", 1, LIMIT_S) == [b"x" * 20]
        assert asyncio.get_running_loop().time() - started > LIMIT_S


async def test_a_request_that_goes_slowly_is_sent_to_its_end() -> None:
    """Most of it lies in the operating system's buffers, where it is seen to shrink."""
    request = bytes(2**20)

    async def sip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = len(request)
        while left:
            left -= len(await reader.read(16384))
            await asyncio.sleep(STEP_S)  # the slowness itself
        writer.write(b"+OK\r\n")
        await writer.drain()

    async with wired(sip) as wire:
        started = asyncio.get_running_loop().time()
        assert await wire.send(request, 1, LIMIT_S) == [b"OK"]
        assert asyncio.get_running_loop().time() - started > LIMIT_S


@pytest.mark.parametrize("request_bytes", [4, 2**20])
@pytest.mark.parametrize("answer", [b"", b"$20\r\nxxx"])
async def test_silence_ends_an_exchange(request_bytes: int, answer: bytes) -> None:
    """Before a reply as well as in the middle of one."""

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(answer)
        await asyncio.Event().wait()

    async with wired(fall_silent) as wire:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.send(bytes(request_bytes), 1, LIMIT_S), 10.0)


async def test_a_shorter_limit_counts_though_a_longer_one_was_given_before() -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(b"+OK\r\n")
        await asyncio.Event().wait()

    async with wired(answer_once) as wire:
        assert await wire.send(b"PING", 1, 60.0) == [b"OK"]
        with pytest.raises(TimeoutError, match="in time"):
            await asyncio.wait_for(wire.send(b"PING", 1, LIMIT_S), 10.0)
