"""What traces ask of a queue: the members that carry a context, and the hooks."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol, TypeVar

from queue_system.model.operation import Operation
from queue_system.model.verdict import Outcome, Verdict

R = TypeVar("R")


class Attempt(Protocol):
    """The trace of one execution that is under way."""

    def end(self, outcome: Outcome, verdict: Verdict) -> None:
        """Note how the execution ended and what becomes of the operation. Called once, in the task that began it."""


class Tracing(Protocol):
    """What `QueueConfig.tracing` holds where traces are on."""

    def sending(
        self, flow: Generator[Any, Any, R], operation: Operation, queue: str, count: int | None = None
    ) -> Generator[Any, Any, R]:
        """Trace the flow that enqueues an operation, or a batch of `count` made after its pattern.

        Before the flow begins, the operation gets the members that carry the trace's context.
        """

    def processing(self, queue: bytes, operation_id: str, operation: Operation) -> Attempt:
        """Trace an execution from here on; what the processor traces belongs to it."""
