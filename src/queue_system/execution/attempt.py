"""The way of one operation through a worker: resolve, execute, judge, settle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, final
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import QueueConfig
from queue_system.errors import UndecodableItemError
from queue_system.execution.callbacks import Callback, Callbacks
from queue_system.execution.delivery import Delivery
from queue_system.execution.engine import Engine
from queue_system.execution.importing import Importer
from queue_system.execution.limits import WORKER_LIMIT, AttemptLimits
from queue_system.execution.middleware import Chain, WrappedAttempt
from queue_system.execution.reporting import Reporter
from queue_system.execution.settlement import PLAIN, Settlement, Settler, Timing
from queue_system.execution.slots import Slot
from queue_system.model.keys import queue_name
from queue_system.model.middleware import Wrapping
from queue_system.model.operation import Operation
from queue_system.model.registry import Processor
from queue_system.model.states import Verb
from queue_system.model.verdict import (
    Complete,
    Fail,
    Outcome,
    Raised,
    Reject,
    Release,
    Retry,
    Unprocessable,
    Verdict,
    judge,
)
from queue_system.tracebacks import trace

_NOT_THE_END = frozenset({Verb.RETRY, Verb.RELEASE})

OnError = Callable[[str, Retry | Fail | Reject], None]


@final
class Call(msgspec.Struct, frozen=True, gc=False):
    """What an attempt calls, None if that must be imported, with what, for how long at most, and by whose limit."""

    processor: Processor | None
    argument: Any
    limit_s: float
    limit_name: str


class AttemptRunner:
    """Takes the deliveries of one worker their way."""

    def __init__(
        self,
        config: QueueConfig,
        limits: AttemptLimits,
        importer: Importer,
        callbacks: Callbacks,
        settler: Settler,
        reporter: Reporter,
    ) -> None:
        self.on_error: OnError | None = None
        """Called with an operation's id and the verdict on every execution that went wrong."""
        self._config = config
        self._limits = limits
        self._importer = importer
        self._run_callback = callbacks.run
        self._settler = settler
        self._reporter = reporter
        self._rests = importer.rests
        self._local = config.registry.local
        self._chain: Chain | None = None
        self._wrapped: WeakValueDictionary[int, WrappedAttempt] = WeakValueDictionary()
        """The wrapped attempts that are under way, by their tokens."""

    async def run(self, engine: Engine, slot: Slot, delivery: Delivery) -> None:
        """Resolve, execute, judge, settle. A callback comes as a delivery of its own."""
        operation = delivery.operation
        slot.started = started = SYSTEM_CLOCK.monotonic()
        started_ms = engine.clock.at(started)
        wrapping = self._config.wrapping
        wrapped = None if wrapping is None else self._wrap(wrapping, engine, slot, delivery)
        outcome: Outcome
        try:
            call = self._resolve(operation, started_ms)
        except UndecodableItemError as error:
            outcome = _undecodable(error)
        else:
            outcome = await self._execute(engine, slot, delivery, call, wrapped)
        if slot.abandoned:
            verdict: Verdict = Release()  # it is settled already, or handed back
        else:
            ended = SYSTEM_CLOCK.monotonic()
            timing = Timing(started_ms, engine.clock.at(ended), ended - started)
            verdict = judge(operation, outcome, started_ms / 1000, timing.ended_ms / 1000)
            verdict = self._settle(engine, delivery, outcome, verdict, timing)
        if wrapped is not None:
            await wrapped.end(outcome, verdict)

    def give_up(self, engine: Engine, delivery: Delivery, outcome: Raised, started: float, started_ms: int) -> None:
        """Judge and settle a delivery whose slot is abandoned, and report it."""
        ended = SYSTEM_CLOCK.monotonic()
        timing = Timing(started_ms, engine.clock.at(ended), ended - started)
        verdict = judge(delivery.operation, outcome, started_ms / 1000, timing.ended_ms / 1000)
        self._settle(engine, delivery, outcome, verdict, timing)
        if (wrapped := self._wrapped.get(delivery.token)) is not None:
            wrapped.tell_apart(outcome, verdict)

    def reject(self, engine: Engine, delivery: Delivery, error: BaseException) -> None:
        """Settle a delivery whose way was interrupted by an error that is not its processor's."""
        self._config.log.error("handling failed", operation_id=delivery.operation_id, exc_info=error)
        found = trace(error) if self._config.tracebacks else None
        reject = Reject(f"handling failed: {type(error).__name__}", type(error).__name__, trace=found)
        engine.completer.put(self._settler.settle(delivery, reject))

    def _wrap(self, wrapping: Wrapping, engine: Engine, slot: Slot, delivery: Delivery) -> WrappedAttempt:
        """Begin what wraps an attempt."""
        chain = self._chain
        if chain is None or chain.wrapping is not wrapping:  # the first attempt, or traces have begun or ended
            chain = self._chain = Chain(wrapping, self._reporter)
        wrapped = self._wrapped[delivery.token] = WrappedAttempt(chain, engine.executor, slot, delivery)
        return wrapped

    def _resolve(self, operation: Operation, started_ms: int) -> Call:
        """Find what to call, with what, and for how long. Raises UndecodableItemError."""
        if self._config.cipher is not None:
            operation = self._config.cipher.decrypt_operation(operation)
        if operation.phase:
            return Call(self._run_callback, Callback.of(operation), self._limits.work_timeout, WORKER_LIMIT)
        processor = self._config.registry.known(operation.processor, operation.processor_module)
        if operation.timeout is None and operation.retry_timeout is None:
            return Call(processor, operation.entity, self._limits.work_timeout, WORKER_LIMIT)
        return Call(processor, operation.entity, *self._limits.of(operation, started_ms))

    def _execute(
        self, engine: Engine, slot: Slot, delivery: Delivery, call: Call, wrapped: WrappedAttempt | None
    ) -> Awaitable[Outcome]:
        """Call what was found, or import it first, within the attempt's limit; `wrapped` is what surrounds it."""
        around = None
        if wrapped is not None:
            wrapped.resolved(call.argument, call.limit_s)
            around = wrapped.around if wrapped.surrounds else None
        if call.limit_s <= 0:
            return _too_late(call)
        processor = call.processor
        if processor is None:
            limit = (call.limit_s, call.limit_name)
            return self._importer.run(engine, slot, delivery, call.argument, limit, around)
        if engine.executor.threads.abandoned and engine.executor.refuses(processor):
            engine.hold_back(delivery)
        elif self._rests.queues:
            self._rests.resolved(queue_name(delivery.queue))
        return engine.executor.run(slot, processor, call.argument, call.limit_s, call.limit_name, around)

    def _report(self, delivery: Delivery, outcome: Outcome, verdict: Retry | Fail | Reject) -> Retry | Fail | Reject:
        """Report an execution that went wrong; return the verdict with the traceback that may be kept."""
        if self.on_error is not None:
            self.on_error(delivery.operation_id, verdict)
        if not self._config.tracebacks:
            verdict = replace(verdict, trace=None)
        timed_out = isinstance(outcome, Raised) and outcome.timed_out
        self._reporter.judged(delivery.operation_id, delivery.operation.processor, verdict, timed_out=timed_out)
        return verdict

    def _settle(
        self, engine: Engine, delivery: Delivery, outcome: Outcome, verdict: Verdict, timing: Timing
    ) -> Verdict:
        """Report what went wrong, and put the verdict among what the next turn sends; return it as it was reported."""
        if type(verdict) is not Complete and not isinstance(verdict, Complete | Release):
            verdict = self._report(delivery, outcome, verdict)
        settlement = self._settler.settle(delivery, verdict, timing)
        if settlement.problem:
            self._reporter.lost_result(delivery.operation_id, delivery.operation.processor, settlement.problem)
        if self._local.known and _is_the_end(settlement):
            self._local.release(delivery.operation)
        engine.completer.put(settlement)
        return verdict


def _is_the_end(settlement: Settlement) -> bool:
    """Tell whether nothing more comes of an operation, whatever the server answers."""
    own_form = settlement.form in {"", PLAIN}
    return own_form and not settlement.follow_up and settlement.verb not in _NOT_THE_END


def _undecodable(error: UndecodableItemError) -> Unprocessable:
    """Return the outcome of an operation whose entity cannot be read."""
    kind = type(error).__name__
    return Unprocessable(str(error), kind, trace=trace(error), exception=error.with_traceback(None))


async def _too_late(call: Call) -> Outcome:
    """Return the outcome of an operation whose total time had passed before it could start."""
    return Raised.before_start(call.limit_name)
