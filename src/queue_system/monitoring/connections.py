"""HTTP connections that nobody can hold: the silent and the slow are closed, the newest is served."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from queue_system.clock import SYSTEM_CLOCK

MOST_CONNECTIONS: Final = 200
"""How many are open at once; one more takes the place of the one that has been silent for longest."""
REQUEST_WITHIN_S: Final = 5.0
"""How long a client may take to send a request's line and headers, from when it connects, or begins the next one."""
FORM_WITHIN_S: Final = 30.0
"""How long it may take to send what follows the headers."""
ANSWER_WITHIN_S: Final = 30.0
"""How long a probe's answer may take until the client has read it."""

_TELL_AGAIN_S: Final = 60.0
_LONGEST_KIND: Final = 100
_MOST_KINDS: Final = 100

# Anybody may send nonsense; the log of a worker is no place to count it. What an application raises is an error.
_log: Final = logging.getLogger("queue_system.http")
_log.setLevel(logging.ERROR)


class BriefProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with a limit for every time a client may make us wait."""

    answer_within_s: ClassVar[float | None] = ANSWER_WITHIN_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _log
        self._timer: asyncio.TimerHandle | None = None
        self._begun = False
        self._order = 0.0

    @property
    def answering(self) -> bool:
        """Whether a request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; beyond the limit, another goes."""
        self._order = self.loop.time()
        super().connection_made(transport)
        self._limit(REQUEST_WITHIN_S)
        if len(self.connections) > MOST_CONNECTIONS:
            others = [each for each in self.connections if isinstance(each, BriefProtocol) and each is not self]
            min(others, key=lambda each: (each.answering, each._order)).drop()  # noqa: SLF001 - one of us

    def data_received(self, data: bytes) -> None:
        """Take in what came, and expect the rest of it soon."""
        was_answering = self.answering
        if not was_answering and not self._begun:
            self._begun = True
            self._limit(REQUEST_WITHIN_S)
        super().data_received(data)
        if not was_answering and self.answering:
            self._limit(FORM_WITHIN_S if self.cycle.more_body else self.answer_within_s)
        elif was_answering and not self.cycle.more_body:
            self._limit(self.answer_within_s)

    def on_response_complete(self) -> None:
        """Wait for the next request, which may be here already."""
        self._begun = False
        self._order = self.loop.time()
        self._limit(REQUEST_WITHIN_S)
        super().on_response_complete()
        if self.answering:
            self._limit(self.answer_within_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._limit(None)
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close the connection, whatever of an answer the client has not read."""
        self.connections.discard(self)
        if not self.transport.is_closing():
            self.transport.abort()

    def _limit(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.drop)


class StreamProtocol(BriefProtocol):
    """The same for pages whose live figures may stream for hours."""

    answer_within_s = None


def sparing_handler() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Return a handler of an event loop's errors that logs each kind of them at most once a minute.

    A process without a free file descriptor has asyncio complain some thousand times a second.
    """
    told: dict[str, float] = {}

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        kind = str(context.get("message"))[:_LONGEST_KIND]
        now = SYSTEM_CLOCK.monotonic()
        if now - told.get(kind, -math.inf) < _TELL_AGAIN_S:
            return
        if len(told) >= _MOST_KINDS:
            told.clear()
        told[kind] = now
        loop.default_exception_handler(context)

    return handle
