"""The stand-in for an item that is too large to be sent."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from queue_system.model.dead_letter import encode_dead_letter
from queue_system.model.keys import check_identifier

_STUB: Final = re.compile(
    rb'\{"operation_id":"([^"]*)","kept_in":"([^"\\]*:([0-9]{1,20}))","bytes":([0-9]{1,20}),"sha1":"([0-9a-f]{40})",'
    rb'"head":"((?:[0-9a-f]{2})*)"\}'
)
_LONGEST_STUB: Final = 8192
_encode = msgspec.json.Encoder().encode


class Oversized(msgspec.Struct, frozen=True, gc=False):
    """What is known of such an item. `kept_in` is the key that holds its bytes, `head` the first KiB of them."""

    operation_id: str
    kept_in: str
    size: int
    sha1: str
    head: bytes

    def reason(self, max_item_bytes: int) -> str:
        """Say why it goes no further."""
        return (
            f"not an item: it has {self.size} bytes, more than max_item_bytes = {max_item_bytes} allows;"
            f" they are kept in the key {self.kept_in}"
        )


def read_oversized(item: bytes, token: int) -> Oversized | None:
    """Read what the scripts put in the place of an item; None: it is something else, or made up by a foreign client.

    What they put in the place of the delivery `token` names that token.
    """
    found = _STUB.fullmatch(item) if len(item) <= _LONGEST_STUB else None
    if found is None or int(found[3]) != token:
        return None
    operation_id, kept_in, _, size, sha1, head = found.groups()
    try:
        id_ = check_identifier(operation_id.decode(), "operation_id") if operation_id else ""
    except ValueError:
        id_ = ""
    return Oversized(id_, kept_in.decode(errors="replace"), int(size), sha1.decode(), bytes.fromhex(head.decode()))


def raw_dead_letter(  # noqa: PLR0913 - what any dead letter says, and the token
    item: bytes,
    token: int,
    queue: bytes,
    reason: str,
    error_type: str,
    failed_at: float,
    *,
    max_item_bytes: int,
) -> bytes:
    """Encode the dead letter of what cannot be read, or was too large to be sent, under the token that it came with."""
    oversized = read_oversized(item, token)
    if oversized is None:
        return encode_dead_letter(item, queue, reason, error_type, failed_at, max_item_bytes=max_item_bytes)
    return oversized_dead_letter(oversized, queue, reason, error_type, failed_at)


def oversized_dead_letter(oversized: Oversized, queue: bytes, reason: str, error_type: str, failed_at: float) -> bytes:
    """Encode the dead letter of an item that is kept under a key of its own."""
    return _encode({
        **({"operation_id": oversized.operation_id} if oversized.operation_id else {}),
        "kept_in": oversized.kept_in,
        "bytes": oversized.size,
        "sha1": oversized.sha1,
        "head": oversized.head.decode(errors="replace"),
        "failure_reason": reason,
        "error_type": error_type,
        "failed_at": round(failed_at, 3),
        "queue": queue.decode(errors="replace"),
    })  # fmt: skip
