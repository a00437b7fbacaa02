"""What a worker says about its own state, as facts of one moment. Never talks to Redis."""

from __future__ import annotations

from dataclasses import dataclass

from queue_system.clock import SYSTEM_CLOCK
from queue_system.execution.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSnapshot:
    """A worker's own state at one moment. All durations are in s; None where there is nothing to report."""

    worker_id: str = ""
    """The name of this life of the worker, as in `list_workers`. Empty before its start; another after a restart."""
    running: bool = False
    """Whether it was started, and not stopped."""
    queues: tuple[str, ...] = ()
    """The names of the queues that it serves; none: it serves all."""
    slots: int = 0
    """How many operations it runs at once."""
    operations: tuple[str, ...] = ()
    """The ids of the operations that run now."""
    in_flight: int = 0
    """How many operations it has claimed and not settled: they wait, run, or the server has yet to answer."""
    waiting: int = 0
    """How many of them wait for a slot."""
    unsettled: int = 0
    """How many verdicts the server has not answered."""
    idle: bool = True
    """Whether it holds nothing and no answer under way may bring it anything."""
    takes_turns: bool = False
    """Whether the task lives that claims and settles."""
    starts_operations: bool = False
    """Whether it may start what it claims: its lease surely holds, and it does not wind down."""
    dead_slots: int = 0
    """How many slots' tasks have ended though the worker runs."""
    abandoned: int = 0
    """How many threads and tasks of operations were given up at their limit and still run."""
    stalled_s: float = 0.0
    """For how long there has been work here of which nothing was started, though slots are free."""
    heartbeat_age_s: float | None = None
    """Since when the heartbeat's thread has been at its present round; None: it has ended."""
    contact_age_s: float | None = None
    """Since when no beat has been answered; None: none ever was."""
    next_due_s: float | None = None
    """In how many s the next delayed operation is due, according to the last claim; None: there was none."""

    @property
    def busy(self) -> int:
        """How many operations run now."""
        return len(self.operations)


def snapshot_of(
    engine: Engine, queues: tuple[str, ...], *, running: bool, takes_turns: bool, round_began: float | None
) -> WorkerSnapshot:
    """Return the state of a worker that has an engine. Callable from any thread.

    `round_began` is when, on the monotonic clock, the heartbeat's present round began; None: it has ended.
    """
    now = SYSTEM_CLOCK.monotonic()
    inflight = engine.inflight
    dispatcher = engine.dispatcher
    slots = engine.executor.slots
    deliveries = [slot.delivery for slot in slots]
    operations = tuple(delivery.operation_id for delivery in deliveries if delivery is not None)
    is_open = dispatcher.is_open
    stalls = running and is_open and not operations and engine.executor.last_start < dispatcher.work_since
    next_due_ms = engine.claimer.next_due_ms
    return WorkerSnapshot(
        worker_id=engine.incarnation,
        running=running,
        queues=queues,
        slots=len(slots),
        operations=operations,
        in_flight=len(inflight.held),
        waiting=inflight.waiting,
        unsettled=engine.completer.unsettled,
        idle=not (inflight.held or engine.unsettled),
        takes_turns=takes_turns,
        starts_operations=running and is_open,
        dead_slots=sum(slot.task is None or slot.task.done() for slot in slots) if running else 0,
        abandoned=engine.executor.abandoned,
        stalled_s=max(0.0, now - dispatcher.work_since) if stalls else 0.0,
        heartbeat_age_s=None if round_began is None else now - round_began,
        contact_age_s=None if dispatcher.last_beat is None else now - dispatcher.last_beat,
        next_due_s=None if next_due_ms < 0 else (next_due_ms - engine.clock.now_ms()) / 1000,
    )
