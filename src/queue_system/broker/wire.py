"""RESP on a connection that redis-py opened: bytes out, replies in.

redis-py connects, authenticates and selects; what costs on every call, packing and reading, is done here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any, Final

import hiredis

from queue_system.broker.connecting import HEEDED_EVERY_S, is_green
from queue_system.broker.loop_end import before_close
from queue_system.clock import SYSTEM_CLOCK

_CHUNK: Final = 65536
_LARGE: Final = 16384
_INCOMPLETE: Final = False
_LATE: Final = "the server did not answer in time"
_S_PER_BYTE: Final = 1 / 1024
"""How much longer a call may take for each byte that passes."""


class ErrorReply(Exception):  # noqa: N818 - it is a reply
    """An error that the server answered, such as `NOSCRIPT No matching script`."""

    primary: str = ""
    """The address of the primary, where a replica answered and has told it."""


def new_reader() -> hiredis.Reader:
    """Return a parser that gives bytes, numbers, lists, None, and errors as ErrorReply objects."""
    return hiredis.Reader(protocolError=ConnectionError, replyError=ErrorReply)


class SyncWire:
    """Exchanges requests and replies on a connected socket, and keeps the time limit that it came with.

    The limit is one for a whole reply: bytes that come one by one do not prolong it. What is large gets a second more
    for each KiB that passes.
    """

    __slots__ = ("_descriptor", "_heed", "_limit_s", "_reader", "_socket", "_usual_s", "home", "until")

    def __init__(
        self,
        connected: socket.socket,
        limit_s: float,
        until: float | None = None,
        heed: Callable[[], object] | None = None,
    ) -> None:
        """Take over a socket. `until` is a moment by which all must end that is exchanged before `settle_in`.

        `heed` is called twice a second while the server is waited for; it may raise OSError.
        """
        self._socket = connected
        green = is_green(type(connected))
        by_itself = green or hasattr(connected, "pending")  # as TLS sockets have
        self._descriptor = -1 if by_itself else connected.fileno()
        self.home = threading.get_native_id() if green else None
        """The only thread that may use it; None: every thread may."""
        self._limit_s = limit_s
        self._heed = heed
        self._usual_s = limit_s if heed is None else min(limit_s, HEEDED_EVERY_S)
        """The socket's own limit between two exchanges."""
        self.until = until
        """By when all must end that is exchanged; None: each exchange has its own limit."""
        self._reader = new_reader()
        connected.settimeout(self._usual_s)

    @property
    def is_at_home(self) -> bool:
        """Whether this thread may use it: a green socket belongs to the event loop of one thread."""
        return self.home is None or self.home == threading.get_native_id()

    def settle_in(self) -> None:
        """From now on each exchange has the whole limit."""
        if self.until is not None:
            self.until = None
            self._socket.settimeout(self._usual_s)

    def send(self, request: bytes) -> None:
        """Send one request. Raises OSError."""
        sent = 0
        if self._descriptor >= 0:  # Python would first ask whether it takes anything, as it nearly always does
            try:
                sent = os.write(self._descriptor, request)
            except BlockingIOError:
                sent = 0
        if sent < len(request):
            self._send_rest(memoryview(request)[sent:])

    def receive(self) -> Any:
        """Return the next reply, an ErrorReply included. Raises OSError."""
        if (reply := self._reader.gets()) is not _INCOMPLETE:
            return reply
        patience = None if self.until is None else self._narrowed(self.until)
        started = SYSTEM_CLOCK.monotonic()
        while True:
            try:
                data = self._socket.recv(_CHUNK)
            except TimeoutError as error:
                patience = patience or Patience(self._limit_s, started)
                self._wait_on(patience, error)
                continue
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
            if (reply := self._reader.gets()) is not _INCOMPLETE:
                break
            patience = patience or Patience(self._limit_s, started)
            self._allow(patience.left_s(len(data)))
        if patience is not None:
            self._restore()
        return reply

    def _send_rest(self, rest: memoryview) -> None:
        patience = (
            Patience(self._limit_s, SYSTEM_CLOCK.monotonic()) if self.until is None else self._narrowed(self.until)
        )
        while rest:
            try:
                sent = self._socket.send(rest)
            except TimeoutError as error:
                self._wait_on(patience, error, "the server did not take the request in time")
                continue
            rest = rest[sent:]
            if rest:
                self._allow(patience.left_s(sent))
        self._restore()

    def _restore(self) -> None:
        if self.until is None:
            self._socket.settimeout(self._usual_s)

    def _narrowed(self, until: float) -> Patience:
        patience = Patience(self._limit_s, until - self._limit_s)
        self._allow(patience.left_s(0))
        return patience

    def _allow(self, left_s: float) -> None:
        """Let the socket wait for so long, or until it is time to heed."""
        self._socket.settimeout(left_s if self._heed is None else min(left_s, HEEDED_EVERY_S))

    def _wait_on(self, patience: Patience, error: TimeoutError, late: str = _LATE) -> None:
        """Wait on after a silence, if there is somebody to heed and time left; else raise TimeoutError."""
        if self._heed is None:
            raise TimeoutError(late) from error
        self._heed()
        try:
            self._allow(patience.left_s(0))
        except TimeoutError:
            raise TimeoutError(late) from error


class Patience:
    """How long may still be waited: a limit in all, and a second more for each KiB that passes."""

    __slots__ = ("_limit_s", "_since")

    def __init__(self, limit_s: float, since: float) -> None:
        self._limit_s = limit_s
        self._since = since

    def left_s(self, passed: int) -> float:
        """Note how many bytes have passed; return how many s are left, and raise TimeoutError if none are."""
        now = SYSTEM_CLOCK.monotonic()
        self._since = min(now, self._since + passed * _S_PER_BYTE)
        left_s = self._since + self._limit_s - now
        if left_s <= 0:
            raise TimeoutError(_LATE)
        return left_s


class AioWire(asyncio.Protocol):
    """Exchanges requests and replies on an asyncio transport, many at a time. For one task."""

    def __init__(self, writer: asyncio.StreamWriter, *, whole: bool = False) -> None:
        """Take over a connection. With `whole`, bytes that come one by one do not prolong the limit, as in SyncWire."""
        transport: Any = writer.transport
        self._whole = whole
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
        before_close(self._loop, self, AioWire.close)

    @property
    def is_closing(self) -> bool:
        """Whether the connection is lost or dropped."""
        return self._transport.is_closing()

    def send(self, request: bytes, count: int, limit_s: float) -> asyncio.Future[list[Any]]:
        """Send requests packed one after the other; the future brings `count` replies, ErrorReply objects included.

        It raises OSError when the connection is lost, and TimeoutError when no byte passes for `limit_s`: what takes
        long because it is large is not given up. One request at a time; after a cancellation the wire is unusable.
        """
        self._replies = []
        self._expected = count
        self._waiting = self._loop.create_future()
        self._transport.write(request)
        self._limit_s = limit_s
        self._passed_at = self._loop.time()
        self._unsent = self._outstanding() if len(request) > _LARGE else 0
        self._watch_until(self._passed_at + limit_s)
        return self._waiting

    def close(self) -> None:
        """Drop the connection at once; in a forked child, its copy of a connection that the parent goes on using."""
        self._end_watch()
        if self._loop.is_closed():
            return  # with which it was lost
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
            self.fail(error)
            return
        if len(self._replies) < self._expected:
            now = self._loop.time()
            self._passed_at = min(now, self._passed_at + len(data) * _S_PER_BYTE) if self._whole else now
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a waiting exchange with an error."""
        self._end_watch()
        self.fail(exc or ConnectionError("the server closed the connection"))

    def _watch_until(self, deadline: float) -> None:
        """Look at the silence at a time of the loop, or earlier; one timer serves many exchanges."""
        if self._watch is None or deadline < self._watch_at:
            self._end_watch()
            self._watch = self._loop.call_at(deadline, self._look)
            self._watch_at = deadline

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
            self._unsent = unsent
            self._passed_at = self._loop.time()
        if self._loop.time() >= self._passed_at + self._limit_s:
            self.fail(TimeoutError(_LATE))
        else:
            self._watch_until(self._passed_at + self._limit_s)

    def _outstanding(self) -> int:
        """Count the bytes of a request that have not reached the server's host, as far as this one knows."""
        descriptor = self._transport.get_extra_info("socket").fileno()
        queued = bytes(4)
        with contextlib.suppress(OSError):  # a system that does not say
            queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, queued)
        return self._transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def fail(self, error: Exception) -> None:
        """End a waiting exchange with an error."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
            self._waiting.exception()  # asyncio need not report it if the event loop ends before the waiter hears of it


def _replace(descriptor: int) -> None:
    """Put a socket without a peer in the place of a shared one: closing either must not touch the event loop's book."""
    lonely, peer = socket.socketpair()
    peer.close()
    with lonely:
        os.dup2(lonely.fileno(), descriptor, inheritable=False)
