"""Finds what came past the queue: foreign pushes, orphans, names out of use, an unsafe server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from queue_system.broker.abilities import many_writer
from queue_system.broker.access import AccessBackoff
from queue_system.broker.server_check import findings, read_server
from queue_system.broker.shard import Shard
from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError
from queue_system.maintenance.service import PeriodicService

_INTERVAL_S = 1.5
_ORPHANS_PER_LEASE = 3
NAMES_EVERY_S = 3600.0
FORGET_AFTER_S = 35 * 86400.0
"""After how long without use the name of an empty queue goes."""


def _never() -> bool:
    return False


class Discovery(PeriodicService):
    """One sweep per fleet and interval, for foreign pushes and orphans; surveys the server once.

    A sweep that comes too early is refused, which costs the server something, too: `sits_out` tells, in each round,
    whether to leave it to others.
    """

    name = "discovery"

    def __init__(
        self,
        config: QueueConfig,
        shard: Shard,
        names: Sequence[str] = (),
        access: AccessBackoff | None = None,
        sits_out: Callable[[], bool] = _never,
    ) -> None:
        super().__init__(config.log, _INTERVAL_S, shard, access)
        self._sits_out = sits_out
        self._config = config
        self._names = tuple(names)
        self._next_names = SYSTEM_CLOCK.monotonic()
        self._surveyed = False
        self._orphans = "0"
        self._next_orphans = SYSTEM_CLOCK.monotonic()

    def perform(self) -> float:
        """Register the lists that this worker serves, and sweep all, unless another worker has just done so."""
        if SYSTEM_CLOCK.monotonic() >= self._next_names:
            self.tend_names()
            self._next_names = SYSTEM_CLOCK.monotonic() + NAMES_EVERY_S
        if not self._sits_out():
            self._sweep()
        if not self._surveyed:
            self.survey()
            self._surveyed = True
        return self.interval_s

    def _sweep(self) -> None:
        cursor = "0"
        while not self.stopped.is_set():
            command = self.shard.commands.sweep(cursor, int(_INTERVAL_S * 1000 * 0.9))
            cursor, _ = self.shard.transport.run(command, retries=0)
            if cursor in ("0", "-1"):
                break
        if cursor == "0" and SYSTEM_CLOCK.monotonic() >= self._next_orphans:
            self._orphans, _ = self.shard.transport.run(self.shard.commands.orphans(self._orphans), retries=0)
            if self._orphans == "0":
                self._next_orphans = SYSTEM_CLOCK.monotonic() + self._config.lease_seconds / _ORPHANS_PER_LEASE

    def tend_names(self) -> None:
        """Register the queues that this worker names, so that they are kept; forget those that nobody uses."""
        commands = self.shard.commands
        run = self.shard.transport.run
        for command in commands.register_queues(self._names):
            run(command, retries=0)
        cursor = "0"
        interval_ms = int(NAMES_EVERY_S * 1000 * 0.9)
        try:
            while not self.stopped.is_set():
                cursor, _ = run(commands.forget_names(cursor, interval_ms, int(FORGET_AFTER_S * 1000)), retries=0)
                if cursor in {"0", "-1"}:
                    return
        except AccessDeniedError as error:  # of a user that was set up before SREM was needed
            self.log.warning("names of queues that nobody uses are kept", error=str(error))

    def survey(self) -> None:
        """Warn of every setting and known flaw of the server that endangers operations."""
        run = partial(self.shard.transport.run, retries=0)
        info, settings = read_server(run)
        self.shard.commands.write_many = many_writer(info, self.shard.commands.keys.prefix, run)
        for finding in findings(info, settings):
            self.log.warning(
                "the server is not safe", kind=finding.kind, problem=finding.problem, remedy=finding.remedy
            )
