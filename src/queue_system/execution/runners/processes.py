"""Child processes for marked processors; one that passes its time limit is killed and replaced. Never uses pickle."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Callable
from typing import Any, Final

import msgspec

from queue_system.errors import ProcessDiedError
from queue_system.execution.runners.children import Child
from queue_system.model.entity import decode_entity
from queue_system.model.registry import Reference
from queue_system.model.verdict import Outcome, Raised, Succeeded
from queue_system.tracebacks import remote

LAST_WORDS_S: Final = 1.0
"""How long a process that is not wanted any longer may tidy up before it is killed."""

BEGINS: Final = b"\n"
"""What a child says when it has found the function and is about to call it."""

_IDLE_S: Final = 60.0
_LOOK_AGAIN_S: Final = 0.002
_CHUNK: Final = 1 << 18


class Request(msgspec.Struct, frozen=True):
    """A function to run, and its input."""

    module: str
    name: str
    entity: Any


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a function returned, as JSON, or what it raised: type, text, and where."""

    result: str = "null"
    result_error: str = ""
    error: str = ""
    error_type: str = ""
    traceback: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answer).decode


class ProcessPool:
    """Runs functions of modules for one event loop, each call in a child that has nothing else to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._children: set[Child] = set()
        self._idle: dict[Child, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Future[int]] = set()

    async def run(self, reference: Reference, argument: Any, begins: Callable[[], None]) -> Outcome:
        """Call a function in a child process and return how that ended; `begins` is called when the child has found it.

        Cancelling the caller ends the child, and returns when it is gone. Raises ProcessDiedError when it died.
        """
        request = _encode(Request(reference.module or "", reference.name, argument)) + b"\n"
        child = self._take()
        try:
            line = await self._ask(child, request, begins)
        except BaseException:
            await self._end_surely(child)
            raise
        if not line:
            raise ProcessDiedError(await self._bury(child))
        self._idle[child] = self._loop.call_later(_IDLE_S, self._retire, child)
        answer = _decode(line)
        if answer.error_type:
            found = remote(answer.error_type, answer.error, answer.traceback)
            return Raised(answer.error, answer.error_type, trace=found)
        return Succeeded(decode_entity(answer.result.encode()), answer.result_error)

    def cut_off(self) -> None:
        """In a forked child of this process: drop the channels, so that they close when this process dies."""
        for child in self._children:
            child.channel.close()

    def close(self) -> None:
        """End all children; blocks until they are gone, for about a second at most."""
        for ending in self._ending:
            ending.cancel()
        for timer in self._idle.values():
            timer.cancel()
        for child in self._children:
            child.hang_up()
            child.signal_group(signal.SIGTERM if child in self._idle else signal.SIGKILL)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(LAST_WORDS_S)
            if child.process.returncode is None:
                child.signal_group(signal.SIGKILL)
                child.process.wait()
            child.channel.close()
        self._children.clear()
        self._idle.clear()

    def _take(self) -> Child:
        while self._idle:
            child, timer = self._idle.popitem()
            timer.cancel()
            if child.process.poll() is None:
                return child
            child.channel.close()
            self._children.discard(child)
        child = Child.start("queue_system.execution.runners.process_child")
        child.channel.settimeout(0)
        self._children.add(child)
        return child

    async def _ask(self, child: Child, request: bytes, begins: Callable[[], None]) -> bytes:
        """Return the line that answers a request; nothing when the child has died."""
        heard = bytearray()
        with contextlib.suppress(ConnectionError):
            await self._loop.sock_sendall(child.channel, request)
            while part := await self._loop.sock_recv(child.channel, _CHUNK):
                heard += part
                if heard.startswith(BEGINS):
                    del heard[: len(BEGINS)]
                    begins()
                if heard.endswith(b"\n"):
                    return bytes(heard)
        return b""

    def _retire(self, child: Child) -> None:
        del self._idle[child]
        self._begin_end(child)

    def _begin_end(self, child: Child) -> asyncio.Future[int]:
        ending = asyncio.Task(self._end(child))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return ending

    async def _end_surely(self, child: Child) -> None:
        """End a child and return when it is gone, however often the caller is cancelled meanwhile."""
        ending = self._begin_end(child)
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({ending})

    async def _end(self, child: Child) -> int:
        """Let a child tidy up, then kill it and what it started."""
        child.hang_up()
        child.signal_group(signal.SIGTERM)
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(LAST_WORDS_S):
                while await self._loop.sock_recv(child.channel, _CHUNK):
                    pass
        return await self._bury(child)

    async def _bury(self, child: Child) -> int:
        """Wait for a child whose channel has closed, or whose time is over, and return its exit code."""
        child.signal_group(signal.SIGKILL)  # does nothing to one that is ending already
        while (code := child.process.poll()) is None:  # noqa: ASYNC110 - no event reports a death everywhere
            await asyncio.sleep(_LOOK_AGAIN_S)
        child.channel.close()
        self._children.discard(child)
        return code
