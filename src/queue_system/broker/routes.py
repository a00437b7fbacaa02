"""Which server holds a shard now: always the same one, or the one that others name. Thread-safe, safe across a fork."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import redis

from queue_system.broker.connection import Endpoint
from queue_system.broker.failures import is_transient, leads_elsewhere
from queue_system.clock import SYSTEM_CLOCK, Clock
from queue_system.errors import QueueSystemError, ServerError
from queue_system.forking import renew_in_children
from queue_system.loop import soon_in
from queue_system.resilience.threads import in_daemon_thread

_LONGEST_WAIT_S: Final = 0.5
_LONGEST_WAIT_FOR_ONE_S: Final = 2.0
TRUSTED_S: Final = 1.0
"""How long an answer is believed before it is asked for again, as long as nothing speaks against it."""
_SHORTEST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 0.5
_LONGEST_SILENT_PAUSE_S: Final = 2.0
_GROWTH: Final = 1.5
_WAIT_FOR_OTHERS_S: Final = 1.0
"""How long who has lost a server waits for another thread that is asking for the new one."""


class RouteChangedError(redis.ConnectionError):
    """Another server is in force than the one that a connection leads to."""


class Follower(Protocol):
    """Who knows which server it is. It is asked by one thread at a time, and may block for a few seconds."""

    def ask(self, known: Endpoint | None, *, doubted: bool) -> Endpoint:
        """Return the server; the very object that is known, if it still is the one. `doubted`: it has failed.

        Raises:
            ServerError: nobody who was asked knows.
        """

    def renew(self) -> None:
        """Note, in a forked child, that open connections are the parent's."""


class Traveller(Protocol):
    """Who may be waiting on a connection in an event loop when the route changes."""

    def leave(self) -> None:
        """Drop the connection if it leads to another server than the one in force."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A change of the server: of which service, from where, to where, and how long the former one had failed, in s."""

    service: str
    former: str
    present: str
    after_s: float


class Route:
    """Leads to the server in force.

    `choose` is called once, when the route is first needed: it returns the server, or who follows it as it moves.
    """

    def __init__(
        self,
        choose: Callable[[], Endpoint | Follower],
        name: Callable[[], str] = lambda: "the server",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._choose = choose
        self._name = name
        self._clock = clock
        self._endpoint: Endpoint | None = None
        self._follower: Follower | None = None
        self.moves = False
        """Whether the server may become another one; false as long as nobody has asked for it."""
        self.epoch = 0
        """How many times it has changed."""
        self.switched: list[Callable[[Switch], object]] = []
        """Who is told of each change, in the thread that has learned of it."""
        self._travellers: weakref.WeakKeyDictionary[Traveller, asyncio.AbstractEventLoop] = weakref.WeakKeyDictionary()
        self._choosing = threading.RLock()
        self._asking = threading.Lock()
        self._due_at = 0.0
        """From when on, on the monotonic clock, the follower is to be asked."""
        self._asked_at = 0.0
        self._pause_s = _SHORTEST_PAUSE_S
        """How long after one question the next may follow."""
        self._doubted = False
        """Whether the server in force has failed since the last question."""
        self._failing_since: float | None = None
        """When it failed for the first time without an answer that cleared the doubt; None: it has not."""
        renew_in_children(self)

    def __call__(self) -> Endpoint:
        """Return the server in force, the same object until it changes; only the first call may block, and fail.

        Raises:
            ServerError: nobody who was asked knows the server, or none can be started.
        """
        endpoint = self._endpoint
        return self._begin() if endpoint is None else endpoint

    @property
    def address(self) -> str:
        """The address of the server in force for messages, without credentials; of who names it, before it is known."""
        endpoint = self._endpoint
        return self._name() if endpoint is None else endpoint.address

    @property
    def primary(self) -> Endpoint | None:
        """The server in force, if another one may take its place and it is known."""
        return self._endpoint if self.moves else None

    @property
    def longest_wait_s(self) -> float:
        """How long to wait at most before a command is sent again."""
        return _LONGEST_WAIT_S if self.moves else _LONGEST_WAIT_FOR_ONE_S

    def failed(self, error: BaseException) -> bool:
        """Note an error that came instead of an answer; return whether sending again may help. Never blocks.

        If it may, and the server may be another one by now, the next who needs it asks.
        """
        if not (is_transient(error) or (self.moves and leads_elsewhere(error))):
            return False
        if self.moves and not isinstance(error, QueueSystemError | RouteChangedError):
            self.doubt()
        return True

    def doubt(self) -> None:
        """Learn that the server does not answer, or not in time: the next who needs it asks. Never blocks."""
        self._doubted = True
        self._due_at = min(self._due_at, self._asked_at + self._pause_s)
        if self._failing_since is None:
            self._failing_since = self._clock.monotonic()

    def heed(self, endpoint: Endpoint) -> None:
        """Learn that a server has been silent; raise RouteChangedError if another one is in force. This may block."""
        self.doubt()
        if self.check() is not endpoint:
            raise RouteChangedError(f"{endpoint.address} is no longer the primary")

    def holds(self, endpoint: Endpoint | None) -> bool:
        """Return whether a server surely is the one in force."""
        return endpoint is self._endpoint and not self._is_due

    def check(self) -> Endpoint:
        """Return the server in force, and ask for it first if it is time for that; this may block.

        Raises:
            ServerError: nobody who was asked knows the server, and none was known before.
        """
        if not self.moves:
            return self()
        if self._is_due:
            lost = self._doubted or self._endpoint is None
            if self._asking.acquire(timeout=_WAIT_FOR_OTHERS_S) if lost else self._asking.acquire(blocking=False):
                try:
                    if self._is_due:
                        self._ask()
                finally:
                    self._asking.release()
        return self()

    async def acheck(self) -> Endpoint:
        """Do what `check` does without blocking the event loop."""
        endpoint = self._endpoint
        if endpoint is None or (self.moves and self._is_due and (self._doubted or not self._asking.locked())):
            return await in_daemon_thread(self.check)
        return endpoint

    def accompany(self, traveller: Traveller, loop: asyncio.AbstractEventLoop) -> None:
        """Tell somebody of each change from now on, in an event loop, for as long as it is used."""
        self._travellers[traveller] = loop

    def renew(self) -> None:
        """In a forked child: leave to the parent what it has open."""
        self._choosing = threading.RLock()
        self._asking = threading.Lock()
        self._travellers = weakref.WeakKeyDictionary()
        if self._follower is not None:
            self._follower.renew()

    @property
    def _is_due(self) -> bool:
        return self._clock.monotonic() >= self._due_at

    def _begin(self) -> Endpoint:
        with self._choosing:
            if self._endpoint is None and self._follower is None:
                chosen = self._choose()
                if isinstance(chosen, Endpoint):
                    self._endpoint = chosen
                else:
                    self._follower = chosen
                    self.moves = True
            if self._endpoint is None:
                self._ask()
            assert self._endpoint is not None  # noqa: S101 - `_ask` raises else
            return self._endpoint

    def _ask(self) -> None:
        follower = self._follower
        if follower is None:
            return
        known = self._endpoint
        doubted = self._doubted
        self._doubted = False
        self._asked_at = self._clock.monotonic()
        longest_s = _LONGEST_PAUSE_S
        try:
            found = follower.ask(known, doubted=doubted)
        except ServerError:
            if known is None:
                raise
            found = known
            doubted = True
            longest_s = _LONGEST_SILENT_PAUSE_S
        now = self._clock.monotonic()
        if found is known and doubted:
            self._due_at = now + self._pause_s
            self._pause_s = min(longest_s, self._pause_s * _GROWTH)
            return
        self._pause_s = _SHORTEST_PAUSE_S
        self._due_at = now + TRUSTED_S
        if found is not known and known is not None:
            self._turn_to(found, known, now)
        self._endpoint = found
        self._failing_since = None

    def _turn_to(self, found: Endpoint, known: Endpoint, now: float) -> None:
        since = now if self._failing_since is None else self._failing_since
        self._endpoint = found
        self.epoch += 1
        for listener in self.switched:
            listener(Switch(found.service, known.place, found.place, now - since))
        for traveller, loop in list(self._travellers.items()):
            soon_in(loop, traveller.leave)
