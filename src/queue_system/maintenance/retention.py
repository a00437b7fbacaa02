"""Drops dead letters that are older than `backup_ttl`."""

from __future__ import annotations

from collections.abc import Callable

from queue_system.broker.access import AccessBackoff
from queue_system.broker.shard import Shard
from queue_system.config import QueueConfig
from queue_system.maintenance.service import PeriodicService
from queue_system.model.dead_letter import read_time

INTERVAL_S = 60.0
_MOST_PASSED = 1000


class Retention(PeriodicService):
    """Trims both lists of dead letters once a minute; several workers that do so at once drop nothing twice."""

    name = "retention"

    def __init__(
        self, config: QueueConfig, shard: Shard, now_ms: Callable[[], int], access: AccessBackoff | None = None
    ) -> None:
        super().__init__(config.log, INTERVAL_S, shard, access)
        self.first_wait_s = INTERVAL_S
        self._config = config
        self._now_ms = now_ms

    def perform(self) -> float:
        """Trim."""
        self.trim()
        return self.interval_s

    def trim(self) -> int:
        """Drop dead letters older than `backup_ttl`; return how many."""
        return sum(self._trim(dead_letters) for dead_letters in ("failures", "system_errors"))

    def _trim(self, dead_letters: str) -> int:
        commands = self.shard.commands
        run = self.shard.transport.run
        oldest_kept = self._now_ms() / 1000 - self._config.backup_ttl
        dropped = kept = 0
        while kept < _MOST_PASSED and not self.stopped.is_set():
            letters = run(commands.aged(dead_letters, kept))
            expired = []
            young = not letters
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
