"""The tasks of a worker's slots: each is replaced when it ends by itself or is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from queue_system.execution.delivery import Delivery
from queue_system.execution.executor import Executor, limit_exceeded
from queue_system.execution.slots import Slot, WorkerTask, stand_in, start_apart
from queue_system.metrics import StructuredLogger
from queue_system.model.verdict import Raised

_REPLACE_AFTER_S = 0.1
_SHOWN = 10

Work: TypeAlias = Callable[[int], Coroutine[Any, Any, None]]
Settle: TypeAlias = Callable[[Delivery, Raised, float], object]


@dataclass(eq=False, slots=True)
class SlotTasks:
    """Starts and ends the tasks that serve an executor's slots."""

    executor: Executor
    log: StructuredLogger
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set when no slot is waited for any longer."""
    _work: Work | None = field(default=None, init=False)
    """What each task does; None until they are started."""
    _stand_ins: list[WorkerTask[None]] = field(default_factory=list, init=False)

    def start_all(self, work: Work, settle: Settle) -> None:
        """Start a task for each slot that does `work`. `settle` settles what is given up, and gets its start time."""
        self._work = work
        self.executor.give_up = partial(self._give_up, settle)
        for index in range(len(self.executor.slots)):
            self.start(index)
            self._stand_ins.append(stand_in(self.ended, f"queue-system-slot-{index}"))

    def start(self, index: int) -> None:
        """Start a slot's task anew, with the current context."""
        if self._work is None:
            return
        slot = self.executor.slots[index]
        task = start_apart(slot, self._work(index), f"queue-system-slot-{index}")
        task.add_done_callback(partial(self._ended, index, slot))

    def cancel(self) -> list[asyncio.Task[None]]:
        """Let every slot end, and cancel what runs. Return the tasks."""
        tasks = []
        for slot in self.executor.slots:
            slot.closing = True
            if (task := slot.task) is not None:
                tasks.append(task)
                if slot.delivery is None:
                    task.cancel()
                else:
                    self.executor.stop_slot(slot)
        return tasks

    def stop_running(self) -> None:
        """Cancel what runs."""
        for slot in self.executor.slots:
            self.executor.stop_slot(slot)

    def running(self) -> list[Slot]:
        """Return the slots in which an operation runs."""
        return [slot for slot in self.executor.slots if slot.delivery is not None]

    def abandon(self) -> None:
        """Wait no longer for what ignores its cancellation."""
        self.log_abandoned()
        for slot in self.running():
            self.executor.abandon(slot)

    def log_abandoned(self) -> None:
        """Log what still runs and will be handed back."""
        if stuck := self.running():
            self.log.warning(
                "operations ignore their cancellation: they are abandoned and run again elsewhere",
                operations=len(stuck), operation_ids=shown_ids(stuck),
            )  # fmt: skip

    def _ended(self, index: int, slot: Slot, task: asyncio.Task[None]) -> None:
        """Replace a task that has ended though nobody asked for it."""
        error = None if task.cancelled() else task.exception()
        if slot.task is task and not slot.closing:
            self.log.error("a slot ended by itself and is replaced", slot=index, exc_info=error)
            self.loop.call_later(_REPLACE_AFTER_S, self.start, index)

    def _give_up(self, settle: Settle, slot: Slot) -> None:
        """Settle an operation that goes on past its limit in spite of its cancellations; another slot follows."""
        executor = self.executor
        delivery = slot.delivery
        index = executor.slots.index(slot)
        executor.abandon(slot)
        executor.slots[index] = executor.new_slot()
        self.log.warning(
            "an operation ignores its cancellation and is abandoned",
            operation_id=delivery.operation_id, processor=delivery.operation.processor, abandoned=executor.abandoned,
        )  # fmt: skip
        settle(delivery, limit_exceeded(slot), slot.started)
        self.start(index)


def shown_ids(slots: list[Slot]) -> str:
    """Return the ids of some operations that run in slots, for the log."""
    return ", ".join(slot.delivery.operation_id for slot in slots[:_SHOWN])
