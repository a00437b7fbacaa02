"""The vital signs of a worker, as facts that travel between processes.

`asdict(health)` is JSON-able, and `WorkerHealth(**members)` brings it back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from queue_system.broker.shard import SERVER_BREAKER
from queue_system.config import QueueConfig
from queue_system.monitoring.lag import lag_of
from queue_system.resilience.circuits import breaker_states
from queue_system.worker import QueueWorker

BLOCKED_AFTER_S = 30.0
"""For how long an event loop may be blocked by default before a restart is asked for."""

STALLED_AFTER_S = 10.0
"""For how long a worker with free slots may have work and start none before it counts as not ready."""

_TIMEOUTS_OF_A_BEAT = 10  # a beat is sent up to three times, each with a connection and an answer to wait for


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """What was found at one moment. All durations are in s; None where nothing is known."""

    pid: int
    incarnation: str = ""
    running: bool = False
    """Started, and not stopped."""
    fetching: bool = False
    """The task that claims and settles lives."""
    consuming: bool = False
    """It claims and starts operations: its lease surely holds, and it does not wind down."""
    slots: int = 0
    busy: int = 0
    loop_lag_s: float = 0.0
    """How late the event loop is."""
    heartbeat_age_s: float | None = None
    """Since when the heartbeat's thread has been at its present round; None: it has ended."""
    contact_age_s: float | None = None
    """Since when no beat has been answered; None: none ever was."""
    circuits: Mapping[str, str] = field(default_factory=dict)
    """The state of each circuit breaker of the process: closed, open or half_open."""
    dead_slots: int = 0
    """Slots whose task has ended."""
    stalled_s: float = 0.0
    """For how long there has been work here of which nothing was started, though slots are free."""
    abandoned: int = 0
    """Threads and tasks of operations that were given up at their limit and still run."""

    def aged(self, seconds: float, told_every_s: float = 0.0) -> WorkerHealth:
        """Return what is known `seconds` later when nothing was heard of the worker since: all durations have grown.

        An event loop that reports at intervals is late only by how much longer than one it has been silent.
        """
        heartbeat = self.heartbeat_age_s
        contact = self.contact_age_s
        return replace(
            self,
            loop_lag_s=max(self.loop_lag_s, seconds - told_every_s) if told_every_s else self.loop_lag_s + seconds,
            heartbeat_age_s=None if heartbeat is None else heartbeat + seconds,
            stalled_s=self.stalled_s and self.stalled_s + seconds,
            contact_age_s=None if contact is None else contact + seconds,
        )

    def why_dead(self, blocked_after_s: float, beat_within_s: float) -> list[str]:
        """Return why only a restart helps; the server plays no part in it. A worker that does not run is not dead.

        The limits are how long the event loop may be blocked, and a beat may take.
        """
        if not self.running:
            return []
        reasons = []
        if self.loop_lag_s > blocked_after_s:
            reasons.append(f"its event loop has been blocked for {self.loop_lag_s:.1f} s")
        if self.heartbeat_age_s is None:
            reasons.append("its heartbeat has ended")
        elif self.heartbeat_age_s > beat_within_s:
            reasons.append(f"its heartbeat has been stuck for {self.heartbeat_age_s:.1f} s")
        if not self.fetching:
            reasons.append("it has stopped fetching operations")
        if self.dead_slots:
            reasons.append(f"{self.dead_slots} of its {self.slots} slots have ended")
        if self.stalled_s > blocked_after_s:
            reasons.append(f"it has had work for {self.stalled_s:.1f} s and has started none")
        return reasons

    def why_idle(self) -> list[str]:
        """Return why it starts no operations."""
        if not self.running:
            return ["it is not running"]
        if self.dead_slots:
            return [f"{self.dead_slots} of its {self.slots} slots have ended"]
        if self.stalled_s > STALLED_AFTER_S:
            return [f"it has had work for {self.stalled_s:.1f} s and has started none"]
        if not self.consuming and self.contact_age_s is not None:
            return [f"it starts nothing; its last beat was answered {self.contact_age_s:.1f} s ago"]
        return [] if self.consuming else ["it starts nothing; no beat was ever answered"]


def longest_beat_s(config: QueueConfig) -> float:
    """Return how long a round of the heartbeat may take when the server leaves each of its tries waiting."""
    return _TIMEOUTS_OF_A_BEAT * config.connection_timeout + config.lease_seconds


def health_of(worker: QueueWorker) -> WorkerHealth:
    """Return a worker's vital signs. Quick, and callable from any thread of its process."""
    found = worker.snapshot()
    loop = worker.loop
    return WorkerHealth(
        pid=os.getpid(),
        incarnation=found.worker_id,
        running=found.running,
        fetching=found.takes_turns,
        consuming=(
            found.starts_operations
            and found.takes_turns
            and not found.dead_slots
            and found.stalled_s <= STALLED_AFTER_S
        ),
        slots=worker.max_workers,
        busy=found.busy,
        loop_lag_s=0.0 if loop is None else round(lag_of(loop), 3),
        heartbeat_age_s=_rounded(found.heartbeat_age_s),
        contact_age_s=_rounded(found.contact_age_s),
        circuits=_circuits(worker.config),
        dead_slots=found.dead_slots,
        stalled_s=round(found.stalled_s, 3),
        abandoned=found.abandoned,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _circuits(config: QueueConfig) -> dict[str, str]:
    """Return the states of the process's breakers, that of this configuration as `redis`, without those of others."""
    states = {name: state for name, state in breaker_states().items() if not name.startswith(SERVER_BREAKER)}
    return {"redis": config.circuit_state, **states}
