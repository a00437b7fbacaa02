"""What foreign programs write into Redis, and what dead workers leave there. Never runs an operation."""

from __future__ import annotations

from typing import Any

import redis

from queue_system import QueueConfig
from queue_system.maintenance.reclaimer import Reclaimer

NOW_MS = 1_700_000_000_000
LEASE_MS = 15_000


def push(client: redis.Redis, config: QueueConfig, *items: bytes | str, name: str = "foreign") -> None:
    """Do what a foreign program does: register a list and push into it."""
    key = config.get_queue_key(name)
    client.sadd(config.get_registry_key(), key)
    client.lpush(key, *items)


def hold(config: QueueConfig, incarnation: str, *values: bytes, claims: int = 0) -> None:
    """Register an incarnation that claims so many items that wait, and takes in values that the caller took."""
    run, commands = config.transport.run, config.commands
    assert run(commands.beat("register", incarnation, LEASE_MS)).alive
    if claims:
        run(commands.claim(incarnation, "c", claims))
    for number, value in enumerate(values):
        run(commands.claim(incarnation, f"c{number}", 1, adopt=value))


def die(config: QueueConfig, incarnation: str) -> None:
    """Declare an incarnation dead, as whoever sees no beat of it does."""
    run, commands = config.transport.run, config.commands
    assert run(commands.declare_dead(incarnation, run(commands.incarnations())[incarnation]))


def reclaimer(config: QueueConfig, **options: Any) -> Reclaimer:
    """Somebody who takes over from the dead."""
    return Reclaimer(config, config.shard, lambda: "own", lambda: NOW_MS, **options)
