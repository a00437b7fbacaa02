"""Collects settlements for one round trip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from queue_system.broker.protocol import pack
from queue_system.broker.requests import MAX_REQUEST_BYTES
from queue_system.execution.settlement import Settlement
from queue_system.model.states import VERBS, Verb

_RANKS: Final[dict[str, int]] = {Verb.RUNNING: 0, Verb.RELEASE: 1}
"""A note that an operation runs must not follow the verdict that ends it. What is handed back goes before verdicts, so
that a claim behind a full batch does not overtake it."""
_LAST: Final = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Settlements that travel together. `packed` holds `count` arguments; a reply has a code for each settlement."""

    serial: int
    packed: bytes
    count: int
    settlements: list[Settlement]

    def durations(self) -> list[float]:
        """Return how long, in s, the operations ran that were executed."""
        return [settlement.timing.duration_s for settlement in self.settlements if settlement.timing.duration_s]


@dataclass(slots=True)
class Outbox:
    """Settlements that wait for the next turn, by verb and lifetime of the record."""

    _groups: dict[tuple[str, int], list[Settlement]] = field(default_factory=dict)
    _serial: int = 0
    _size: int = 0
    enough: int = 0
    """At how many settlements `filled` is called."""
    filled: Callable[[], None] | None = None

    def __len__(self) -> int:
        return self._size

    @property
    def hands_back(self) -> bool:
        """Whether something is among them that goes back to its list, to be next there."""
        return any(verb == Verb.RELEASE for verb, _ in self._groups)

    def put(self, settlement: Settlement) -> None:
        """Add a settlement."""
        self._size += 1
        if self._size == self.enough and self.filled is not None:
            self.filled()
        key = (settlement.form or settlement.verb, settlement.ttl_ms)
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = [settlement]
        else:
            group.append(settlement)

    def take(self, most: int) -> Batch | None:
        """Remove up to `most` settlements, or about 8 MiB of them, and pack them; None when there are none."""
        if not self._groups:
            return None
        parts: list[bytes] = []
        taken: list[Settlement] = []
        count = size = 0
        for (verb, ttl_ms), group in sorted(self._groups.items(), key=_rank):
            packed = [settlement.packed for settlement in group[: most - len(taken)]]
            size += sum(map(len, packed))
            while size > MAX_REQUEST_BYTES and len(taken) + len(packed) > 1:
                size -= len(packed.pop())
            chosen = group[: len(packed)]
            rest = group[len(packed) :]
            if rest:
                self._groups[verb, ttl_ms] = rest
            else:
                del self._groups[verb, ttl_ms]
            if chosen:
                parts.append(pack((verb, ttl_ms, len(chosen))))
                parts += packed
                taken += chosen
                count += 3 + VERBS[verb].arity * len(chosen)
        self._serial += 1
        self._size -= len(taken)
        return Batch(self._serial, b"".join(parts), count, taken)

    def requeue(self, settlements: Sequence[Settlement]) -> None:
        """Put settlements before all others, in their order."""
        for settlement in reversed(settlements):
            key = (settlement.form or settlement.verb, settlement.ttl_ms)
            self._groups.setdefault(key, []).insert(0, settlement)
            self._size += 1

    def clear(self) -> None:
        """Forget everything, because the incarnation was reclaimed."""
        self._groups.clear()
        self._size = 0


def _rank(entry: tuple[tuple[str, int], list[Settlement]]) -> int:
    (verb, _), _ = entry
    return _RANKS.get(verb, _LAST)
