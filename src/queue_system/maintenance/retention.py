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
        return sum(self._trim(source) for source in ("failures", "system_errors"))

    def _trim(self, source: str) -> int:
        commands = self.shard.commands
        run = self.shard.transport.run
        oldest_kept = self._now_ms() / 1000 - self._config.backup_ttl
        dropped = kept = 0
        while kept < _MOST_PASSED and not self.stopped.is_set():
            dead_letters = run(commands.aged(source, kept))
            expired = []
            young = not dead_letters
            for dead_letter in dead_letters:
                when = read_time(dead_letter)
                if when is not None and when < oldest_kept:
                    expired.append((kept, dead_letter))
                else:  # one without a time must not be dropped by age
                    kept += 1
                    young = young or when is not None
            gone = run(commands.trim(source, expired)) if expired else 0
            dropped += gone
            if young or (expired and not gone):  # another worker has dropped them, and goes on
                break
        if dropped:
            self.log.warning("dead letters dropped", list=source, dropped=dropped, backup_ttl_s=self._config.backup_ttl)
        return dropped
