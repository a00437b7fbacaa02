"""Opens a blocking connection within one limit: TCP, TLS and log-in together.

redis-py gives each of these steps, and each read within them, a limit of its own, and the look-up of a name none.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from queue_system.clock import SYSTEM_CLOCK
from queue_system.resilience.threads import call_in_thread

T = TypeVar("T")
HEEDED_EVERY_S: Final = 0.5
"""How often who waits for a server that may be replaced looks whether it has been."""
_TRIED_FOR_S: Final = 1.5
"""How long a server that may be replaced may take to accept a connection: a lost packet is sent again within that."""
_NOWHERE: Final = "the host has no address"
Address = tuple[int, Any]
"""An address family, and an address of it."""


def numeric_addresses(host: str, port: int) -> Sequence[Address]:
    """Return the address that a host's name spells out; nothing if it must be looked up."""
    try:
        family = socket.AF_INET if ipaddress.ip_address(host).version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
    except ValueError:
        return ()
    return () if "%" in host else ((family, (host, port)),)


def look_up(host: str, port: int) -> Sequence[Address]:
    """Return the addresses of a host. Blocks for as long as the system's resolver does."""
    return [(family, address) for family, _, _, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)]


async def reach(addresses: Sequence[Address]) -> socket.socket:
    """Return a socket for an event loop that is connected to the first address that answers. Raises OSError."""
    problem: OSError = ConnectionError(_NOWHERE)
    for family, address in addresses:
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.settimeout(0)
            await asyncio.get_running_loop().sock_connect(connected, address)
        except OSError as error:
            connected.close()
            problem = error
        except BaseException:
            connected.close()
            raise
        else:
            return connected
    raise problem


def within(limit_s: float, fn: Callable[..., T], *arguments: object) -> T:
    """Call what may hang, such as the system's resolver, in a thread of its own; raise TimeoutError at the limit.

    Where there is no other thread to be had, as at the process's exit, it is called in this one. So it is where sockets
    are green and threads are not: green calls of another thread would start an event loop there.
    """
    if is_green(socket.socket) and not is_green(type(threading.Lock())):
        return fn(*arguments)
    try:
        return call_in_thread(fn, arguments, {}, limit_s)
    except RuntimeError:
        return fn(*arguments)


def is_green(kind: type) -> bool:
    """Return whether gevent or eventlet has put a class of its own in the place of the standard library's."""
    return kind.__module__.partition(".")[0] in {"gevent", "eventlet"}


class HurriedSocket:
    """A socket whose every call must end before one moment, until it is let go.

    `heed` is called twice a second while it waits for data; it may raise OSError.
    """

    def __init__(self, plain: Any, deadline: float, heed: Callable[[], object] | None = None) -> None:
        self.plain = plain
        self._deadline: float | None = deadline
        self._heed = heed

    def let_go(self) -> Any:
        """Return the socket itself; what still uses this object has all the time that the socket has."""
        self._deadline = None
        return self.plain

    def send(self, *arguments: Any) -> Any:
        """Send within what is left of the time."""
        self._hurry()
        return self.plain.send(*arguments)

    def sendall(self, *arguments: Any) -> None:
        """Send all within what is left of the time."""
        self._hurry()
        self.plain.sendall(*arguments)

    def recv(self, *arguments: Any) -> Any:
        """Receive within what is left of the time."""
        return self._received(self.plain.recv, arguments)

    def recv_into(self, *arguments: Any) -> Any:
        """Receive within what is left of the time."""
        return self._received(self.plain.recv_into, arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def _received(self, receive: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        while self._heed is not None and self._deadline is not None:
            self.plain.settimeout(min(HEEDED_EVERY_S, remaining_s(self._deadline)))
            try:
                return receive(*arguments)
            except TimeoutError:
                self._heed()
        self._hurry()
        return receive(*arguments)

    def _hurry(self) -> None:
        if self._deadline is not None:
            self.plain.settimeout(remaining_s(self._deadline))


def remaining_s(deadline: float) -> float:
    """Return how many s there are to a moment of the monotonic clock. Raises TimeoutError when it has passed."""
    left_s = deadline - SYSTEM_CLOCK.monotonic()
    if left_s <= 0:
        raise TimeoutError("the time limit has passed")
    return left_s


class _Tcp(Connection):
    """Connects to addresses that were looked up before."""

    addresses: Sequence[Address] = ()
    deadline: float
    heed: Callable[[], object] | None = None

    def _connect(self) -> Any:
        problem: OSError = ConnectionError(_NOWHERE)
        for family, address in self.addresses:
            connected = socket.socket(family, socket.SOCK_STREAM)
            try:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.socket_keepalive:
                    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for option, value in self.socket_keepalive_options.items():
                        connected.setsockopt(socket.IPPROTO_TCP, option, value)
                left_s = remaining_s(self.deadline)
                connected.settimeout(left_s if self.heed is None else min(left_s, _TRIED_FOR_S))
                connected.connect(address)
                connected.settimeout(remaining_s(self.deadline))  # for TLS, which shakes hands next
            except OSError as error:
                connected.close()
                problem = error
            except BaseException:
                connected.close()
                raise
            else:
                return connected
        raise problem


class _Hurried(Connection):
    """Hands redis-py a socket that keeps one limit for all that it does on it."""

    deadline: float
    heed: Callable[[], object] | None = None

    def _connect(self) -> HurriedSocket:
        parent: Any = super()
        return HurriedSocket(parent._connect(), self.deadline, self.heed)  # noqa: SLF001 - what it overrides


class TcpConnection(_Hurried, _Tcp):
    """A connection over TCP."""


class TlsConnection(_Hurried, SSLConnection, _Tcp):
    """A connection over TLS."""


class UnixConnection(UnixDomainSocketConnection):
    """A connection over a Unix socket."""

    deadline: float
    host = ""
    port = 0
    """Names that redis-py asks for when it notes that a connection could not be made."""

    def _connect(self) -> HurriedSocket:
        parent: Any = super()
        self.socket_connect_timeout = remaining_s(self.deadline)
        return HurriedSocket(parent._connect(), self.deadline)  # noqa: SLF001 - what it overrides
