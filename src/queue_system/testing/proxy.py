"""A TCP proxy in front of one server that does what networks do: delay, hold, cut and lose."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeVar

import redis

from queue_system.broker.urls import check_url
from queue_system.testing.resp import Values, command_name
from queue_system.validation import check_text

T = TypeVar("T")
What = Literal["request", "reply"]

ANY: Final = "any"
"""Stands for every command."""
FOR_EVER: Final = 1 << 62

_CHUNK = 65536
_SMALL = 1024
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Loss:
    """What is lost of the requests or replies of one command. The connection closes behind each loss.

    `keep` is how many bytes still arrive, None for any number; a message that is not longer than that is spared.
    """

    share: float
    keep: int | None
    times: int


@dataclass(frozen=True, slots=True)
class Shape:
    """How bytes pass: after how many s (evenly between two limits), in slices of how many bytes, how many per s."""

    delay_s: tuple[float, float] = (0.0, 0.0)
    slice_bytes: int = 0
    bytes_per_s: float = 0.0


_FREE = Shape()


class Proxy:
    """Stands at `url` for the server at `server_url` while it is entered; any thread may call its methods.

    `server_url` is a plain `redis://` or `unix://`. Chance is seeded. `injected` counts losses and resets, `seen`
    requests that went through, by script (`enqueue`, `claim`, `settle`, ...) or command (`PING`).
    """

    def __init__(self, server_url: str, seed: int = 1) -> None:
        server_url = check_text("server_url", server_url, "a URL")
        self.chance = random.Random(seed)
        self.injected: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.accepted = 0
        """How many connections clients have opened."""
        self.failures: list[BaseException] = []
        self.shape = _FREE
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        """Whether bytes to the server, and from it, may pass."""
        self._credentials = "".join(server_url.partition("://")[2].rpartition("@")[:2])
        server = redis.ConnectionPool.from_url(check_url(server_url)).connection_kwargs
        self._server_address = server.get("path") or (server.get("host", "localhost"), server.get("port", 6379))
        self._losses: dict[tuple[What, str], Loss] = {}
        self._links: dict[asyncio.Task[None], Link] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.settimeout(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="queue-system-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open)
        self._do(lambda: self._loop.add_reader(self._listener, self._accept))
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()
        self._listener.close()
        if self.failures:
            raise AssertionError(f"the proxy itself failed: {self.failures[0]!r}") from self.failures[0]

    @property
    def url(self) -> str:
        """The address as `QueueConfig(redis_url=...)` takes it, with the server's credentials."""
        return f"redis://{self._credentials}{self.address}/0"

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def links(self) -> int:
        """How many connections are open."""
        return self._do(lambda: len(self._links))

    def lose(
        self, what: What, command: str, share: float = 1.0, *, keep: int | None = 0, times: int = FOR_EVER
    ) -> None:
        """Lose requests or replies of a script, a command or `ANY` from now on, as `Loss` says, at most `times`."""
        self._do(lambda: self._losses.__setitem__((what, command), Loss(share, keep, times)))

    def hold(self, *, up: bool = False, down: bool = False) -> None:
        """Let nothing pass in these directions until `heal`; what senders and networks keep meanwhile arrives then."""
        for event, held in ((self.up, up), (self.down, down)):
            if held:
                self._do(event.clear)

    def delay(self, shape: Shape) -> None:
        """Shape what passes from now on."""
        self.shape = shape

    def heal(self) -> None:
        """End every fault; connections that are half open stay so."""
        self._do(self._open)

    def reset(self) -> int:
        """End every connection with a TCP reset; return how many."""
        return self._do(lambda: sum(link.reset() for link in self._links.values()))

    def half_open(self, *, server_learns: bool) -> int:
        """Let clients that block for work wait on connections that are no more; return how many.

        They learn nothing of it. Unless the server learns, it goes on serving them, and its replies vanish.
        """
        return self._do(
            lambda: sum(link.half_open(server_learns=server_learns) for link in self._links.values() if link.blocks)
        )

    def kept(self, what: What, command: str, message: bytes) -> bytes | None:
        """Return what is left of a message if it is lost, else None. For links."""
        loss = self._losses.get((what, command)) or self._losses.get((what, ANY))
        if loss is None or loss.times <= 0 or self.chance.random() >= loss.share:
            return None
        keep = self.chance.randrange(len(message)) if loss.keep is None else loss.keep
        if keep >= len(message):
            return None
        loss.times -= 1
        self.injected[f"{what} {command}"] += 1
        return message[:keep]

    async def connect(self) -> socket.socket:
        """Connect to the server. For links."""
        address = self._server_address
        server = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        server.settimeout(0)
        try:
            await self._loop.sock_connect(server, address)
        except BaseException:
            server.close()
            raise
        return server

    def _do(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(10.0)

    def _open(self) -> None:
        self._losses.clear()
        self.shape = _FREE
        self.up.set()
        self.down.set()

    def _accept(self) -> None:
        # Not `sock_accept`: what it has accepted in the turn that cancels it is closed by nobody.
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has gone meanwhile
            return
        client.settimeout(0)
        self.accepted += 1
        link = Link(self, client)
        task = self._loop.create_task(link.run())
        self._links[task] = link
        task.add_done_callback(self._links.pop)

    async def _end(self) -> None:
        self._loop.remove_reader(self._listener)
        for link in self._links.values():
            link.end()
        await asyncio.gather(*self._links)


class Link:
    """One client's connection, and the one to the server that stands for it."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._expected: deque[str] = deque()
        self._ended = asyncio.Event()
        self._mute = False
        self._cut_off = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def blocks(self) -> bool:
        """Whether the client waits for the server to wake it."""
        return not self._mute and bool(self._expected) and self._expected[0] == "BZPOPMIN"

    async def run(self) -> None:
        """Pass bytes until one side ends, or a fault ends both."""
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(OSError):  # without a server the client is closed, too
                self._server = await self._proxy.connect()
                for end in (self._client, self._server):
                    if end.family == socket.AF_INET:
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._tasks = [
                    loop.create_task(self._up(self._server)),
                    loop.create_task(self._down(self._server)),
                ]
                await self._ended.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
                    self._proxy.failures.append(outcome)
            self._client.close()
            if self._server is not None:
                self._server.close()

    def end(self) -> None:
        """End both connections."""
        self._ended.set()

    def reset(self) -> bool:
        """End the client's connection with a reset; tell whether it was still there."""
        if self._client.fileno() < 0:
            return False
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._proxy.injected["reset"] += 1
        self._ended.set()
        return True

    def half_open(self, *, server_learns: bool) -> bool:
        """Bring the client nothing any more; with `server_learns` end the other connection."""
        self._mute = True
        self._cut_off = server_learns
        if server_learns and self._server is not None:
            self._tasks[1].cancel()
            self._server.shutdown(socket.SHUT_RDWR)
        self._proxy.injected["half open"] += 1
        return True

    async def _up(self, server: socket.socket) -> None:
        proxy = self._proxy
        values = Values()
        try:
            while data := await asyncio.get_running_loop().sock_recv(self._client, _CHUNK):
                await proxy.up.wait()
                if self._cut_off:
                    continue
                passed: list[bytes] = []
                for request in values.feed(data):
                    name = command_name(request)
                    kept = proxy.kept("request", name, request)
                    passed.append(request if kept is None else kept)
                    if kept is not None:
                        await self._send(server, b"".join(passed))
                        return
                    proxy.seen[name] += 1
                    self._expected.append(name)
                await self._send(server, b"".join(passed))
        finally:
            self._ended.set()

    async def _down(self, server: socket.socket) -> None:
        proxy = self._proxy
        values = Values()
        try:
            while data := await asyncio.get_running_loop().sock_recv(server, _CHUNK):
                await proxy.down.wait()
                if self._mute:
                    continue
                passed: list[bytes] = []
                for reply in values.feed(data):
                    name = self._expected.popleft() if self._expected else ""
                    refused = reply.startswith(b"-NOSCRIPT")  # nothing was done yet: the call with the text follows
                    kept = None if refused else proxy.kept("reply", name, reply)
                    passed.append(reply if kept is None else kept)
                    if kept is not None:
                        await self._send(self._client, b"".join(passed))
                        return
                await self._send(self._client, b"".join(passed))
        finally:
            if not self._cut_off:
                self._ended.set()

    async def _send(self, to: socket.socket, data: bytes) -> None:
        shape = self._proxy.shape
        loop = asyncio.get_running_loop()
        if shape is _FREE:
            await loop.sock_sendall(to, data)
            return
        await asyncio.sleep(self._proxy.chance.uniform(*shape.delay_s))
        step = shape.slice_bytes or _SMALL
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            await loop.sock_sendall(to, piece)
            await asyncio.sleep(len(piece) / shape.bytes_per_s if shape.bytes_per_s else 0.0)
