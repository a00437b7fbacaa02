"""Shows that this worker lives, from a thread of its own, so that a blocked event loop loses no lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from queue_system.broker.access import AccessBackoff
from queue_system.broker.shard import Shard
from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError, QueueSystemError
from queue_system.maintenance.service import PeriodicService


class Holder(Protocol):
    """Whom the heartbeat keeps alive. Its methods are called on the event loop."""

    @property
    def registered(self) -> str | None:
        """The incarnation that is shown to live; None while there is none on the server."""

    @property
    def held(self) -> Collection[int]:
        """The tokens known here."""

    @property
    def newest(self) -> float:
        """The newest token that no claim under way may yet bring."""

    @property
    def access(self) -> AccessBackoff:
        """What it knows of the server."""

    def confirm(self, sent: float) -> None:
        """Note that a beat was answered."""

    def lose(self, incarnation: str) -> None:
        """Note that the incarnation was reclaimed."""

    def release_unknown(self, incarnation: str, tokens: Sequence[int]) -> None:
        """Hand back tokens that nobody here knows."""


class Heartbeat(PeriodicService):
    """Beats every quarter of a lease, and notices tokens that the server books on us and nobody here knows.

    `tell` returns what the worker reports of itself (`Presence`).
    """

    name = "heartbeat"

    def __init__(
        self,
        config: QueueConfig,
        shard: Shard,
        holder: Holder,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[[], bytes] = bytes,
    ) -> None:
        super().__init__(config.log, config.lease_seconds / 4, shard, holder.access)
        self._config = config
        self._holder = holder
        self._loop = loop
        self._told = tell
        self._unknown: set[int] = set()

    def perform(self) -> float:
        """Beat once, with quick resends while the lease allows it."""
        if self._loop.is_closed():
            self.stop()  # nobody will finish what is held: let it be reclaimed
            return 0.0
        incarnation = self._holder.registered
        sent = SYSTEM_CLOCK.monotonic()
        if incarnation is None:
            return self.interval_s
        command = self.shard.commands.beat("beat", incarnation, int(self._config.lease_seconds * 1000), self._told())
        pulse = self.shard.beat_transport.run(command, retries=2, wait=self.stopped.wait)
        self.access.answer()
        if not pulse.alive:
            self._tell(self._holder.lose, incarnation)
        else:
            self._tell(self._holder.confirm, sent)
            if pulse.tokens > len(self._holder.held) or self._unknown:
                self._reconcile(incarnation)
        return self.interval_s

    def hold_s(self) -> float:
        """Take part in the tries, since the event loop may be blocked; not while there is nothing to beat for."""
        return self.interval_s if self._holder.registered is None else self.access.wait_s()

    def failed(self, error: QueueSystemError) -> float:
        """Try again soon: the lease runs on."""
        if isinstance(error, AccessDeniedError):
            self.access.deny()
        return min(0.5, super().failed(error) / 2)

    def _reconcile(self, incarnation: str) -> None:
        """Release tokens that stay unknown from one beat to the next, if no claim under way may bring them.

        An answer under way explains those of one beat.
        """
        try:
            booked = self.shard.transport.run(self.shard.commands.tokens(incarnation), retries=0)
        except QueueSystemError:
            return
        newest = self._holder.newest
        unknown = {token for token in booked if token <= newest}.difference(self._holder.held)
        if doomed := sorted(unknown & self._unknown):
            self._config.log.warning(
                "operations without a holder are handed back", incarnation=incarnation, tokens=len(doomed)
            )
            self._tell(self._holder.release_unknown, incarnation, doomed)
        self._unknown = unknown

    def _tell(self, listener: object, *arguments: object) -> None:
        if self.stopped.is_set():
            return
        try:
            self._loop.call_soon_threadsafe(listener, *arguments)  # type: ignore[arg-type]
        except RuntimeError:  # the loop was closed meanwhile
            self.stop()
