"""Deliveries for tests of the steps that an operation passes through."""

from __future__ import annotations

from typing import Any

import msgspec

from queue_system.execution.delivery import Delivery
from queue_system.model.operation import decode_item


def make_delivery(token: int = 1, queue: bytes = b"normal:p", *, claimed: float = 0.0, **members: Any) -> Delivery:
    """A delivery of an item with the given members, as a claim would bring it."""
    item = msgspec.json.encode({"operation_id": f"id{token}", "processor": "p", **members})
    return Delivery("incarnation", token, queue, item, decode_item(item), claimed)


def unpack(packed: bytes) -> list[bytes]:
    """Read packed arguments as a server does."""
    values = []
    while packed:
        length, _, packed = packed[1:].partition(b"\r\n")
        values.append(packed[: int(length)])
        packed = packed[int(length) + 2 :]
    return values
