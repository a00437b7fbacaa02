"""What the dashboard shows of the fleet at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from queue_system.broker.shard import SERVER_BREAKER
from queue_system.config import QueueConfig
from queue_system.inspection.fleet import FleetStats, QueueStats, read_fleet
from queue_system.inspection.workers import WorkerRecord, read_workers
from queue_system.resilience.circuits import breaker_states

__all__ = ["NOTHING", "QueueStats", "Stats", "circuits_of", "read_stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """The fleet at one moment. `workers` is None where the user of the server may not look."""

    fleet: FleetStats
    workers: Sequence[WorkerRecord] | None = ()
    primary: Mapping[str, str] = field(default_factory=dict)
    """The service of the sentinels, and where its primary is; nothing where there are no sentinels."""

    @property
    def waiting(self) -> int:
        """How many items are ready."""
        return sum(queue.depth for queue in self.fleet.queues)

    @property
    def dead_letters(self) -> int:
        """How many dead letters lie in both lists."""
        return sum(self.fleet.dead_letters.values())

    @property
    def oldest_age_s(self) -> float:
        """The longest that any queue's next item has been ready."""
        return max((queue.oldest_age_s or 0.0 for queue in self.fleet.queues), default=0.0)


NOTHING: Final = Stats(FleetStats(0.0, (), True, 0, 0, 0, {"failures": 0, "system_errors": 0}, {}))  # noqa: FBT003
"""What is shown before the server has answered."""


def read_stats(config: QueueConfig, *, inflight: bool) -> Stats:
    """Read the fleet's stats, and with `inflight` how much each worker holds. Blocks. Raises ServerError."""
    fleet = read_fleet(config)
    return Stats(fleet, read_workers(config, inflight=inflight, details=inflight), config.primary)


def circuits_of(config: QueueConfig) -> dict[str, str]:
    """Return the states of this process's circuit breakers, that of this configuration as `redis`."""
    others = {name: state for name, state in sorted(breaker_states().items()) if not name.startswith(SERVER_BREAKER)}
    return {"redis": config.circuit_state, **others}
