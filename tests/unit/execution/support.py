"""Deliveries for tests of the steps that an operation passes through."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec

from queue_system import QueueConfig
from queue_system.execution.completer import Completer
from queue_system.execution.delivery import Delivery
from queue_system.execution.inflight import InFlight
from queue_system.execution.outbox import Batch
from queue_system.execution.prefetch import Prefetch
from queue_system.execution.refusals import Refusals
from queue_system.execution.reporting import Reporter
from queue_system.execution.server_clock import ServerClock
from queue_system.execution.settlement import Settler
from queue_system.metrics import MetricsRecorder, StructuredLogger
from queue_system.model.operation import decode_item
from tests.kit.logs import LineLogger

SETTLER = Settler("host:1", 300.0, 10_000)


class Stage:
    """What a worker holds, its completer with a real reporter, and the metrics that it fills; they never meet a server.

    `lost` has the incarnations of which the completer said that they are lost.
    """

    def __init__(self) -> None:
        log = StructuredLogger.wrap(LineLogger())
        self.metrics = MetricsRecorder(log)
        self.lost: list[str] = []
        reporter = Reporter(self.metrics, log)
        config = QueueConfig(redis_url="redis://h")
        self.inflight = InFlight(SETTLER, reporter)
        self.completer = Completer(
            commands=config.commands,
            inflight=self.inflight,
            prefetch=Prefetch(1),
            reporter=reporter,
            rests=reporter.new_rests(),
            clock=ServerClock(),
            refusals=Refusals(config, SETTLER),
            changed=asyncio.Event(),
            dedup_ttl_s=config.dedup_ttl,
            lose=self.lost.append,
        )

    def accept(self, token: int, queue: str = "normal:p", **members: Any) -> None:
        item = json.dumps({"operation_id": f"id{token}", "processor": "p", **members})
        self.inflight.accept(token, f"{queue}\n{item}".encode(), 1_000)

    def next(self) -> Delivery:
        delivery = self.inflight.buffer.take()
        assert delivery is not None
        return delivery

    def batch(self) -> Batch:
        batch = self.inflight.outbox.take(1000)
        assert batch is not None
        return batch

    def settled(self, batch: Batch, codes: bytes, now_ms: int) -> None:
        self.completer.judged(batch, codes, now_ms)
        assert self.inflight.arrivals.take_in()

    def released(self) -> list[int]:
        """The tokens of the releases that wait to be sent, in their order."""
        batch = self.batch()
        assert {settlement.verb for settlement in batch.settlements} == {"release"}
        return [settlement.delivery.token for settlement in batch.settlements]


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
