"""What a worker reports about itself with each beat: the queues it serves, and how much it has abandoned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from queue_system.broker.protocol import Command, plain
from queue_system.broker.replies import parse_incarnations
from queue_system.model.keys import Keys

_MOST_NAMES: Final = 10

Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class Presence(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a worker."""

    queues: list[str] = []
    """The first names of the queues that it serves; none: it serves all."""
    more_queues: Count = 0
    """How many more it serves."""
    slots: Count = 0
    """How many operations it runs at once."""
    abandoned: Count = 0
    """How many threads and tasks of operations were given up at their limit and still run."""

    @property
    def serves(self) -> str:
        """The queues, as text."""
        more = [f"and {self.more_queues:,} more"] if self.more_queues else []
        return ", ".join([*self.queues, *more]) or "all queues"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Presence).decode


def encode_presence(names: Sequence[str], slots: int, abandoned: int) -> bytes:
    """Return what a worker that serves these queues reports; without names, it serves all."""
    return _encode(Presence(list(names[:_MOST_NAMES]), len(names[_MOST_NAMES:]), slots, abandoned))


def presences(keys: Keys, incarnations: Sequence[str]) -> Command[dict[str, Presence]]:
    """Read what some incarnations report about themselves; those of older releases report nothing."""

    def parse(reply: Any) -> dict[str, Presence]:
        told = parse_incarnations(reply)
        found = {}
        for incarnation in incarnations:
            try:
                found[incarnation] = _decode(told.get(incarnation, b""))
            except (ValueError, RecursionError, msgspec.MsgspecError):  # nothing, or a foreign program's
                continue
        return found

    return plain(parse, "HGETALL", f"{keys.prefix}incarnations")
