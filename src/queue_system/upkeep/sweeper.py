"""Indexes foreign pushes, drops old dead letters, and warns of an unsafe server. Never touches a live operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from queue_system.broker.contact import Contact
from queue_system.broker.server_check import findings, read_server
from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError
from queue_system.model.letter import read_time
from queue_system.upkeep.duty import Duty

_INTERVAL_S = 1.5
_TRIM_EVERY_S = 60.0
_ORPHANS_PER_LEASE = 3
NAMES_EVERY_S = 3600.0
FORGET_AFTER_S = 35 * 86400.0
"""After how long without use the name of an empty queue goes."""
_MOST_PASSED = 1000


class Sweeper(Duty):
    """One sweep per fleet and interval, for foreign pushes and orphans; trims dead letters; surveys the server."""

    name = "sweeper"

    def __init__(
        self,
        config: QueueConfig,
        now_ms: Callable[[], int],
        names: Sequence[str] = (),
        contact: Contact | None = None,
    ) -> None:
        super().__init__(config.log, _INTERVAL_S, config.upkeep_outage, contact)
        self._config = config
        self._now_ms = now_ms
        self._names = tuple(names)
        self._next_names = SYSTEM_CLOCK.monotonic()
        self._surveyed = False
        self._orphans, self._next_orphans = "0", SYSTEM_CLOCK.monotonic()
        self._next_trim = SYSTEM_CLOCK.monotonic() + _TRIM_EVERY_S

    def perform(self) -> float:
        """Register the lists that this worker serves, and sweep all, unless another worker has just done so."""
        if SYSTEM_CLOCK.monotonic() >= self._next_names:
            self.tend_names()
            self._next_names = SYSTEM_CLOCK.monotonic() + NAMES_EVERY_S
        cursor = "0"
        while not self.stopped.is_set():
            command = self._config.commands.sweep(cursor, int(_INTERVAL_S * 1000 * 0.9))
            cursor, _ = self._config.transport.run(command, retries=0)
            if cursor in ("0", "-1"):
                break
        if cursor == "0" and SYSTEM_CLOCK.monotonic() >= self._next_orphans:
            self._orphans, _ = self._config.transport.run(self._config.commands.orphans(self._orphans), retries=0)
            if self._orphans == "0":
                self._next_orphans = SYSTEM_CLOCK.monotonic() + self._config.lease_seconds / _ORPHANS_PER_LEASE
        if not self._surveyed:
            self.survey()
            self._surveyed = True
        if SYSTEM_CLOCK.monotonic() >= self._next_trim:
            self._next_trim = SYSTEM_CLOCK.monotonic() + _TRIM_EVERY_S
            self.trim()
        return self.interval_s

    def tend_names(self) -> None:
        """Register the queues that this worker names, so that they are kept; forget those that nobody uses."""
        commands, run = self._config.commands, self._config.transport.run
        for command in commands.register_queues(self._names):
            run(command, retries=0)
        cursor, interval_ms = "0", int(NAMES_EVERY_S * 1000 * 0.9)
        try:
            while not self.stopped.is_set():
                cursor, _ = run(commands.forget_names(cursor, interval_ms, int(FORGET_AFTER_S * 1000)), retries=0)
                if cursor in {"0", "-1"}:
                    return
        except AccessDeniedError as error:  # of a user that was set up before SREM was needed
            self.log.warning("names of queues that nobody uses are kept", error=str(error))

    def survey(self) -> None:
        """Warn of every setting and known flaw of the server that endangers operations."""
        for finding in findings(*read_server(partial(self._config.transport.run, retries=0))):
            self.log.warning(
                "the server is not safe", kind=finding.kind, problem=finding.problem, remedy=finding.remedy
            )

    def trim(self) -> int:
        """Drop dead letters older than `backup_ttl`; return how many."""
        return sum(self._trim(dead_letters) for dead_letters in ("failures", "system_errors"))

    def _trim(self, dead_letters: str) -> int:
        commands, run = self._config.commands, self._config.transport.run
        oldest_kept = self._now_ms() / 1000 - self._config.backup_ttl
        dropped = kept = 0
        while kept < _MOST_PASSED and not self.stopped.is_set():
            letters = run(commands.aged(dead_letters, kept))
            expired, young = [], not letters
            for letter in letters:
                when = read_time(letter)
                if when is not None and when < oldest_kept:
                    expired.append((kept, letter))
                else:  # one that tells no time is nobody's to drop
                    kept += 1
                    young = young or when is not None
            gone = run(commands.trim(dead_letters, expired)) if expired else 0
            dropped += gone
            if young or (expired and not gone):  # another worker has dropped them, and goes on
                break
        if dropped:
            self.log.warning(
                "dead letters dropped", list=dead_letters, dropped=dropped, backup_ttl_s=self._config.backup_ttl
            )
        return dropped
