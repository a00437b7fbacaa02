"""What Python reads and writes of the formats that `broker/scripts/lib` owns. Never talks to Redis.

Records are in `record.py`, dead letters in `dead_letter.py`, and what stands for an item too large to be sent in
`oversized.py`. All of this may have been written by anybody: nothing here raises.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from operator import methodcaller
from typing import Final

_DEAD: Final = "dead:"
_LONGEST_NUMBER: Final = 20  # digits of a 64-bit number

split_value: Final[Callable[[bytes], tuple[bytes, bytes, bytes]]] = methodcaller("partition", b"\n")
"""Split a value in flight into queue, line feed and item. Not a function of its own, since it runs per operation."""


def join_value(queue: bytes, item: bytes) -> bytes:
    """Return a value in flight: a queue, a line feed and an item."""
    return b"%b\n%b" % (queue, item)


def split_member(member: bytes) -> tuple[bytes, bytes]:
    """Return queue and item of a member of the delayed set, which is a nonce, a line feed and a value as in flight."""
    queue, _, item = split_value(split_value(member)[2])
    return queue, item


def dead(worker_id: str) -> str:
    """Return the field of a worker that was declared dead, in the hash of all workers."""
    return f"{_DEAD}{worker_id}"


def is_dead(field: str) -> bool:
    """Return whether a field of the hash of all workers stands for one that was declared dead."""
    return field.startswith(_DEAD)


def id_of(field: str) -> str:
    """Return the worker's id in a field of the hash of all workers."""
    return field.removeprefix(_DEAD)


def new_worker_id(place: str) -> str:
    """Return a new id for a worker at `HOST:PID`."""
    return f"{secrets.token_hex(8)}@{place}"


def place_of(worker_id: str) -> str:
    """Return `HOST:PID` of a worker, which stands behind its random name; "" where an older release runs."""
    return worker_id.partition("@")[2]


def beats_of(entry: bytes) -> int:
    """Return the counter in a worker's entry, `COUNTER:LEASE_MS`; 0 where there is none."""
    beats = entry.partition(b":")[0]
    return int(beats) if is_number(beats) else 0


def lease_s_of(entry: bytes, default: float) -> float:
    """Return the lease in a worker's entry, in s, or `default` where there is none."""
    lease_ms = entry.partition(b":")[2]
    return int(lease_ms) / 1000 if is_number(lease_ms) else default


def split_rest(note: bytes) -> tuple[str, str, str]:
    """Return the queue's name, the worker's place and the reason in the note of a queue that a worker leaves alone."""
    queue, _, rest = note.decode(errors="replace").partition("\t")
    worker, _, reason = rest.partition("\t")
    return queue, worker, reason


def whole_ms(score: bytes) -> int:
    """Return a sorted set's score as whole ms; 0 for one that is not finite."""
    until_ms = float(score)
    return int(until_ms) if math.isfinite(until_ms) else 0


def is_number(text: bytes) -> bool:
    """Return whether bytes are a whole number of at most 20 digits."""
    return text.isdigit() and len(text) <= _LONGEST_NUMBER
