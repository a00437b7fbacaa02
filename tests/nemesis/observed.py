"""A worker that tells the history what it claims and settles. Never changes what the worker does.

A processor does not see its token; here it finds its whole delivery in `CURRENT`, in threads too.
"""

from __future__ import annotations

import functools
import os
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from queue_system import QueueWorker
from queue_system.execution.attempt import AttemptRunner
from queue_system.execution.completer import Completer
from queue_system.execution.delivery import Delivery
from queue_system.execution.engine import Engine
from queue_system.execution.inflight import InFlight
from queue_system.execution.outbox import Batch, Outbox
from queue_system.execution.settlement import Settlement
from queue_system.execution.slots import Slot
from tests.nemesis.history import VARIABLE, History, Kind

NAME_VARIABLE = "NEMESIS_NAME"
"""The environment variable that holds the worker's name in the history."""

CURRENT: ContextVar[Delivery] = ContextVar("delivery")
"""The delivery that is being handled."""


@functools.cache
def pen() -> History:
    """Return this process's way to write history."""
    return History(Path(os.environ[VARIABLE]), os.environ[NAME_VARIABLE])


class ObservedInFlight(InFlight):
    """Tells what arrives."""

    def accept(self, token: int, value: bytes, now_ms: int) -> None:
        """Take in one value; no slot can start it before its line is written."""
        super().accept(token, value, now_ms)
        pen().note("ok", "claim", **_about(self.held[token]))


class ObservedOutbox(Outbox):
    """Tells what is decided, of what runs and of what is handed back; nothing of a lost incarnation gets here."""

    __slots__ = ()

    def put(self, settlement: Settlement) -> None:
        """Take a settlement; its line is written before it can be sent."""
        if settlement.verb != "running":
            pen().note("invoke", "settle", **_about(settlement.delivery), verb=settlement.verb)
        super().put(settlement)


class ObservedCompleter(Completer):
    """Tells what the server answers."""

    __slots__ = ()

    def judged(self, batch: Batch, codes: bytes, now_ms: int) -> None:
        """Learn the server's answer to each settlement."""
        for settlement, code in zip(batch.settlements, codes.decode(), strict=True):
            if settlement.verb != "running":
                kind: Kind = "ok" if code == "d" else "fail"
                pen().note(kind, "settle", **_about(settlement.delivery), verb=settlement.verb)
        super().judged(batch, codes, now_ms)


class ObservedAttempts(AttemptRunner):
    """Lets a processor find its delivery."""

    async def run(self, engine: Engine, slot: Slot, delivery: Delivery) -> None:
        """Take one delivery its way."""
        before = CURRENT.set(delivery)
        try:
            await super().run(engine, slot, delivery)
        finally:
            CURRENT.reset(before)


class ObservedWorker(QueueWorker):
    """A QueueWorker whose flight is observed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._attempts.__class__ = ObservedAttempts  # it adds no state

    def _open_engine(self, slots: int) -> Engine:
        engine = super()._open_engine(slots)
        engine.inflight.__class__ = ObservedInFlight  # these add no state, and others know the objects already
        engine.inflight.outbox.__class__ = ObservedOutbox
        engine.completer.__class__ = ObservedCompleter
        return engine


def _about(delivery: Delivery) -> dict[str, str | int]:
    """Return what tells one delivery from all others; the id of one that only the server knew is empty."""
    operation = delivery.operation
    return {"id": operation.operation_id, "token": delivery.token, "phase": operation.phase}
