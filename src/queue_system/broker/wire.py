"""RESP on a connection that redis-py opened: bytes out, replies in. Never opens, retries or interprets anything.

redis-py connects, authenticates and selects; what costs on every call, packing and reading, is done here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
from typing import Any, Final

import hiredis

_CHUNK: Final = 65536
_LARGE: Final = 16384
_INCOMPLETE: Final = False


class ErrorReply(Exception):  # noqa: N818 - it is a reply
    """An error that the server answered, such as `NOSCRIPT No matching script`."""


def new_reader() -> hiredis.Reader:
    """Return a parser that gives bytes, numbers, lists, None, and errors as ErrorReply objects."""
    return hiredis.Reader(protocolError=ConnectionError, replyError=ErrorReply)


class SyncWire:
    """Exchanges requests and replies on a blocking socket, which keeps the time limit that it came with."""

    __slots__ = ("_reader", "_socket")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._reader = new_reader()
        _let_the_kernel_wait(connected)

    def send(self, request: bytes) -> None:
        """Send one request. Raises OSError."""
        try:
            self._socket.sendall(request)
        except BlockingIOError as error:
            raise TimeoutError("the server takes no more in time") from error

    def receive(self) -> Any:
        """Return the next reply, an ErrorReply included. Raises OSError."""
        while (reply := self._reader.gets()) is _INCOMPLETE:
            try:
                data = self._socket.recv(_CHUNK)
            except BlockingIOError as error:
                raise TimeoutError("the server did not answer in time") from error
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
        return reply


def _let_the_kernel_wait(connected: socket.socket) -> None:
    """Move a socket's time limit into the kernel: Python's own costs a poll before each call. TLS needs Python's."""
    limit_s = connected.gettimeout()
    if not limit_s or type(connected) is not socket.socket:
        return
    whole_s = int(limit_s)
    limit = struct.pack("@ll", whole_s, max(1, int((limit_s - whole_s) * 1e6)))
    with contextlib.suppress(OSError):  # a system with another idea of a time value
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connected.settimeout(None)


class AioWire(asyncio.Protocol):
    """Exchanges requests and replies on an asyncio transport, many at a time. For one task."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        transport: Any = writer.transport
        self._transport: asyncio.Transport = transport
        self._writer = writer  # it would close the transport if it were collected
        self._home = os.getpid()
        self._reader = new_reader()
        self._replies: list[Any] = []
        self._expected = 0
        self._waiting: asyncio.Future[list[Any]] | None = None
        self._limit_s = 0.0
        self._passed_at = 0.0
        self._unsent = 0
        self._watch: asyncio.TimerHandle | None = None
        self._watch_at = 0.0
        self._loop = asyncio.get_running_loop()
        transport.set_protocol(self)

    @property
    def is_closing(self) -> bool:
        """Whether the connection is lost or dropped."""
        return self._transport.is_closing()

    def send(self, request: bytes, count: int, limit_s: float) -> asyncio.Future[list[Any]]:
        """Send requests packed one after the other; the future brings `count` replies, ErrorReply objects included.

        It raises OSError when the connection is lost, and TimeoutError when no byte passes for `limit_s`: what takes
        long because it is large is not given up. One request at a time; after a cancellation the wire is unusable.
        """
        self._replies, self._expected = [], count
        self._waiting = self._loop.create_future()
        self._transport.write(request)
        self._limit_s, self._passed_at = limit_s, self._loop.time()
        self._unsent = self._outstanding() if len(request) > _LARGE else 0
        self._watch_until(self._passed_at + limit_s)
        return self._waiting

    def close(self) -> None:
        """Drop the connection at once; in a forked child, its copy of a connection that the parent goes on using."""
        self._end_watch()
        if os.getpid() == self._home:
            self._transport.abort()
        elif not self._transport.is_closing():
            _replace(self._transport.get_extra_info("socket").fileno())

    def data_received(self, data: bytes) -> None:
        """Parse what came; the last reply ends the exchange."""
        self._reader.feed(data)
        try:
            while len(self._replies) < self._expected and (reply := self._reader.gets()) is not _INCOMPLETE:
                self._replies.append(reply)
        except ConnectionError as error:
            self._fail(error)
            return
        if len(self._replies) < self._expected:
            self._passed_at = self._loop.time()
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a waiting exchange with an error."""
        self._end_watch()
        self._fail(exc or ConnectionError("the server closed the connection"))

    def _watch_until(self, deadline: float) -> None:
        """Look at the silence at a time of the loop, or earlier; one timer serves many exchanges."""
        if self._watch is None or deadline < self._watch_at:
            self._end_watch()
            self._watch, self._watch_at = self._loop.call_at(deadline, self._look), deadline

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        """Fail an exchange whose limit has passed in silence."""
        self._watch = None
        if self._waiting is None or self._waiting.done():
            return
        if self._unsent and (unsent := self._outstanding()) < self._unsent:
            self._unsent, self._passed_at = unsent, self._loop.time()
        if self._loop.time() >= self._passed_at + self._limit_s:
            self._fail(TimeoutError("the server did not answer in time"))
        else:
            self._watch_until(self._passed_at + self._limit_s)

    def _outstanding(self) -> int:
        """Count the bytes of a request that have not reached the server's host, as far as this one knows."""
        descriptor = self._transport.get_extra_info("socket").fileno()
        queued = bytes(4)
        with contextlib.suppress(OSError):  # a system that does not tell
            queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, queued)
        return self._transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


def _replace(descriptor: int) -> None:
    """Put a socket without a peer in the place of a shared one: closing either must not touch the event loop's book."""
    lonely, peer = socket.socketpair()
    peer.close()
    with lonely:
        os.dup2(lonely.fileno(), descriptor, inheritable=False)
