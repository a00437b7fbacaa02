"""What requests carry, and how much of it: split so that no script touches too many items or bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

MAX_ITEMS: Final = 1000
"""How many items one script may touch."""
MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""How many bytes of items one request may carry."""
_MAX_RECLAIMS: Final = 100
_PAGE_BYTES: Final = 1024 * 1024


class NewOperation(msgspec.Struct, frozen=True, gc=False):
    """One operation to enqueue: its id, its item, and its deduplication key, or ""."""

    operation_id: str
    item: bytes
    deduplication_key: str = ""


@dataclass(frozen=True, slots=True)
class Reclaim:
    """What becomes of one item of a dead incarnation. `how` is "next", "later", "reject" or, unread, "back"."""

    token: bytes
    old: bytes
    how: str
    new: bytes
    operation_id: str = ""
    record: bytes = b""
    record_ttl_ms: int = 1
    deduplication_key: str = ""
    follow_up: bytes = b""


@dataclass(frozen=True, slots=True)
class Place:
    """Where some dead letters were read: a list, and the places to look at, counted from its old end.

    `call_id` and `number` name the request: sent again, it is the same one.
    """

    source: str
    call_id: str
    number: int
    lowest: int
    highest: int


def split_batch(operations: Sequence[NewOperation]) -> Iterator[list[NewOperation]]:
    """Split a batch so that no request has too many items or bytes."""
    chunk: list[NewOperation] = []
    size = 0
    for operation in operations:
        if chunk and (len(chunk) == MAX_ITEMS or size + len(operation.item) > MAX_REQUEST_BYTES):
            yield chunk
            chunk = []
            size = 0
        chunk.append(operation)
        size += len(operation.item)
    if chunk:
        yield chunk


def split_reclaims(reclaims: Sequence[Reclaim]) -> Iterator[list[Reclaim]]:
    """Split reclaims so that no request has too many items or bytes."""
    chunk: list[Reclaim] = []
    size = 0
    for reclaim in reclaims:
        its_size = len(reclaim.old) + len(reclaim.new) + len(reclaim.record) + len(reclaim.follow_up)
        if chunk and (len(chunk) == _MAX_RECLAIMS or size + its_size > MAX_REQUEST_BYTES):
            yield chunk
            chunk = []
            size = 0
        chunk.append(reclaim)
        size += its_size
    if chunk:
        yield chunk


def next_page(members: Sequence[bytes], count: int) -> int:
    """Return how many members to read at once after a page of `count`: about a mebibyte, and not suddenly many."""
    average = sum(map(len, members)) // len(members) if members else 1
    return max(1, min(8 * count, 500, _PAGE_BYTES // max(1, average)))
