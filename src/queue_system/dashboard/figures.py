"""What the dashboard shows of the fleet at one moment. Never changes anything, and never uses the circuit breaker."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from queue_system.broker.presence import Presence
from queue_system.broker.replies import DEAD, lease_s
from queue_system.config import SERVER_BREAKER, QueueConfig
from queue_system.errors import AccessDeniedError
from queue_system.inspection.fleet import MOST_WORKERS, FleetFigures, QueueFigures, read_fleet, read_presences
from queue_system.resilience.circuits import breaker_states

__all__ = ["MOST_WORKERS", "NOTHING", "Figures", "QueueFigures", "WorkerFigures", "circuits_of", "read_figures"]


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """One incarnation. `holds` is None where it was not read."""

    incarnation: str
    entry: bytes
    holds: int | None = None
    told: Presence | None = None
    """What it tells of itself; None where that was not read, or it tells nothing."""

    @property
    def dead(self) -> bool:
        """Whether it is being reclaimed."""
        return self.incarnation.startswith(DEAD)

    @property
    def name(self) -> str:
        """The random part of the incarnation."""
        return self.incarnation.removeprefix(DEAD).partition("@")[0]

    @property
    def place(self) -> str:
        """`host:pid`; empty where an older release runs."""
        return self.incarnation.partition("@")[2]

    @property
    def lease_s(self) -> float:
        """How long it may be silent; not finite where the entry does not tell."""
        return lease_s(self.entry, math.inf)


@dataclass(frozen=True, slots=True)
class Figures:
    """The fleet at one moment. `workers` is None where the user of the server may not look."""

    fleet: FleetFigures
    workers: Sequence[WorkerFigures] | None = ()

    @property
    def waiting(self) -> int:
        """How many items are ready."""
        return sum(queue.depth for queue in self.fleet.queues)

    @property
    def dead_letters(self) -> int:
        """How many letters lie in both lists."""
        return sum(self.fleet.dead_letters.values())

    @property
    def oldest_age_s(self) -> float:
        """The longest that any queue's next item has been ready."""
        return max((queue.oldest_age_s or 0.0 for queue in self.fleet.queues), default=0.0)


NOTHING: Final = Figures(FleetFigures(0.0, (), True, 0, 0, 0, {"failures": 0, "system_errors": 0}, {}))  # noqa: FBT003
"""What is shown before the server has answered."""


def read_figures(config: QueueConfig, *, holdings: bool) -> Figures:
    """Read the fleet's figures, and with `holdings` how much each worker holds. Blocks. Raises ServerError."""
    return Figures(read_fleet(config), _read_workers(config, holdings=holdings))


def circuits_of(config: QueueConfig) -> dict[str, str]:
    """Return the states of this process's circuit breakers, that of this configuration as `redis`."""
    others = {name: state for name, state in sorted(breaker_states().items()) if not name.startswith(SERVER_BREAKER)}
    return {"redis": config.circuit_state, **others}


def _read_workers(config: QueueConfig, *, holdings: bool) -> tuple[WorkerFigures, ...] | None:
    run, commands = partial(config.transport.run_many, retries=1), config.commands
    try:
        (entries,) = run((commands.incarnations(),))
    except AccessDeniedError:
        return None
    names = sorted(entries, key=lambda name: (name.startswith(DEAD), name.partition("@")[2], name))
    holds: dict[str, int] = {}
    if holdings and names:
        looked = names[:MOST_WORKERS]
        with contextlib.suppress(AccessDeniedError):
            tokens = run([commands.tokens(name.removeprefix(DEAD)) for name in looked])
            holds = {name: len(held) for name, held in zip(looked, tokens, strict=True)}
    told = read_presences(config, names[:MOST_WORKERS]) if holdings else {}
    return tuple(WorkerFigures(name, entries[name], holds.get(name), told.get(name)) for name in names)
