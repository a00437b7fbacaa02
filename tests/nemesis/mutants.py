"""Protocols that are broken on purpose, to show that the checker would notice. Never touches the source.

A mutant is put on in the worker processes alone, by an environment variable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from queue_system.broker.commands import SCRIPTS, Commands
from queue_system.broker.protocol import Command, Script
from queue_system.maintenance.reclaimer import Observation, Reclaimer

VARIABLE = "NEMESIS_MUTANT"
"""The environment variable that names a worker process's mutant."""


def apply(name: str) -> None:
    """Put a mutant on in this process; nothing for an empty name. Raises KeyError for an unknown one."""
    if name:
        MUTANTS[name]()


def ignore_the_counter() -> None:
    """Let a reclaimer declare a worker dead that has beaten since it was observed, or while no beats come through.

    It leaves no sign that it watches, since that is a write: while writes are held up it would see nothing at all.
    """
    _patch(
        "declare_dead",
        ("('HGET', workers, ARGV[1]) ~= ARGV[2] then", "('HEXISTS', workers, ARGV[1]) == 0 then"),
    )

    def beats(self: Reclaimer, entry: bytes, asked: float, answered: float) -> bool:
        return True

    def watch(self: Commands, sign: str) -> Command[dict[str, bytes]]:
        return self.incarnations()

    Reclaimer._beats = beats  # type: ignore[method-assign]
    Commands.watch = watch  # type: ignore[method-assign]


def settle_without_token() -> None:
    """Accept a settlement whoever sends it."""
    _patch(
        "settle",
        ("if not (redis.call('HEXISTS', workers, incarnation) == 1) then return 'lost' end\n", "\n"),
        ("return redis.call('HDEL', inflight, token) == 1 end", "redis.call('HDEL', inflight, token) return true end"),
        ("if redis.call('HEXISTS', inflight, token) == 0 then return false end\n", "\n"),
        ("if redis.call('HDEL', inflight, ARGV[i]) == 1 then", "if redis.call('HDEL', inflight, ARGV[i]) then"),
    )


def lease_by_age() -> None:
    """Let a lease end at its age, whether the worker beats or not."""

    def is_silent(self: Reclaimer, incarnation: str, entry: bytes, asked: float, answered: float) -> bool:
        first = self._seen.setdefault(incarnation, Observation(entry, answered))
        return asked - first.since >= int(entry.rpartition(b":")[2]) / 1000

    Reclaimer._is_silent = is_silent  # type: ignore[method-assign]


def claim_anew() -> None:
    """Let a claim that is sent again claim other items."""
    _patch("claim", ("if previous_id == claim_id then", "if false then"))


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    "ignore-the-counter": ignore_the_counter,
    "settle-without-token": settle_without_token,
    "lease-by-age": lease_by_age,
    "claim-anew": claim_anew,
}
"""Every mutant by its name."""


def _patch(script: str, *changes: tuple[str, str]) -> None:
    source = SCRIPTS[script].source.decode()
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{script}.lua has {source.count(old)} times {old!r}; a mutant must change one place")
        source = source.replace(old, new)
    SCRIPTS[script] = Script(script, source)
