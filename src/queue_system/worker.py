"""QueueWorker: operations go through. The way of one is readable in `_handle`; each step lives in its own module."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from queue_system.broker.loop_end import before_close, cancel_before_close, is_being_closed
from queue_system.clock import SYSTEM_CLOCK
from queue_system.config import BREAKER, QueueConfig, breaker_name
from queue_system.errors import AccessDeniedError, InvalidInputError, QueueSystemError, UndecodableItemError
from queue_system.execution.callbacks import callback_data, callback_reference
from queue_system.execution.delivery import Delivery
from queue_system.execution.engine import Engine
from queue_system.execution.importing import Importer
from queue_system.execution.reporting import Reporter
from queue_system.execution.settlement import Settler, Timing
from queue_system.execution.slots import NEVER, Slot, WorkerTask, blame, context_of, differs, is_the_end
from queue_system.loop import soon_in
from queue_system.maintenance.discovery import Discovery
from queue_system.maintenance.heartbeat import Heartbeat
from queue_system.maintenance.reclaimer import Reclaimer
from queue_system.maintenance.retention import Retention
from queue_system.maintenance.service import PeriodicService
from queue_system.metrics import LogThrottle
from queue_system.model.formats import join_value
from queue_system.model.keys import check_queue_name, queue_name
from queue_system.model.lazy import finished
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
from queue_system.resilience import circuit_breaker, in_daemon_thread, retry_with_backoff
from queue_system.tracebacks import trace
from queue_system.validation import check_instance, check_list, check_seconds, check_whole, refused

_NOT_THE_END = frozenset({Verb.RETRY, Verb.RELEASE})
_LONGEST_GRACE_S = 25.0
_MOST_SLOTS = 100_000
_HOW_MANY = "use the number of operations that may run at once"
_WORKER_LIMIT = "work_timeout of the worker"
_OWN_LIMIT = "timeout of the operation"


class _Unset(float):
    """A default that can be told from the same number given by a caller."""


_WORK_TIMEOUT = _Unset(30.0)


class QueueWorker:
    """Processes queued operations in the event loop that calls `start`.

    Args:
        config: shared with the manager.
        max_workers: how many operations run at once.
        work_timeout: limit of one attempt, in s, and of the wait for running operations in `stop`. The default limits
            only operations that were enqueued without a `timeout` of their own; a number that is given limits all.
        queues: names of the queues served. None: all.

    Raises:
        InvalidInputError: a value makes no sense; its field is named.
    """

    def __init__(
        self,
        config: QueueConfig,
        max_workers: int = 5,
        work_timeout: float = _WORK_TIMEOUT,
        *,
        queues: Sequence[str] | None = None,
    ) -> None:
        self.config = check_instance("config", config, QueueConfig)
        self.max_workers = check_whole("max_workers", max_workers, 1, _MOST_SLOTS, _HOW_MANY)
        limit_s = check_seconds("work_timeout", work_timeout, above=True)
        self.work_timeout = work_timeout if isinstance(work_timeout, _Unset) else limit_s
        self._conflicts = LogThrottle(60.0, SYSTEM_CLOCK)
        self.on_error: Callable[[str, Retry | Fail | Reject], None] | None = None
        """Called with an operation's id and the verdict on every execution that went wrong; for tests."""
        if queues is not None and not check_list("queues", queues, "a list of queue names"):
            raise refused("queues", "at least one queue name", "an empty list", "use None for all queues")
        self.queues = tuple(check_queue_name(name, "queues") for name in queues or ())
        self._settler = Settler(
            f"{socket.gethostname()}:{os.getpid()}", config.result_ttl, config.max_item_bytes, config.sealing
        )
        self._reporter = Reporter(config.metrics, config.log, config.observers)
        self._rests = self._reporter.new_rests()
        self._importer = Importer(config.registry, self._rests)
        self._local = config.registry.local
        self._engine: Engine | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._services: list[PeriodicService] = []
        self._running = False
        self._lifecycle = asyncio.Lock()

    @property
    def running(self) -> bool:
        """Whether the worker has been started and not stopped, and its event loop not been closed."""
        return self._running and not self._is_stranded

    @property
    def abandoned(self) -> int:
        """How many threads and tasks of operations were given up at their limit and still run."""
        return 0 if self._engine is None else self._engine.executor.abandoned

    async def start(self) -> None:
        """Start processing; returns at once. A second call does nothing.

        An unreachable server is tried again in the background. Raises AccessDeniedError for wrong credentials, and
        InvalidInputError for a URL from the environment that names no server.
        """
        await self._leave_closed_loop()
        async with self._lifecycle:
            if self._running:
                return
            engine = self._engine = self._open_engine(self.max_workers)
            try:
                await in_daemon_thread(self.config.prepare)  # which may have to start a server
                await engine.fetcher.turn()
            except QueueSystemError as error:
                if isinstance(error, AccessDeniedError | InvalidInputError):
                    await engine.discard()
                    raise
                problem = {"error": str(error), "error_type": type(error).__name__}
                self.config.log.error("server trouble at start: trying again", **problem)
            except BaseException:  # cancelled: what the turn may have claimed goes back
                await engine.leave()
                raise
            self._running = True
            self._start_tasks(engine)
            self._log_start(engine)

    def _log_start(self, engine: Engine) -> None:
        self.config.log.info(
            "worker started", incarnation=engine.fetcher.incarnation, server=self.config.address,
            prefix=self.config.queue_prefix, queues=",".join(self.queues) or "all", concurrency=self.max_workers,
        )  # fmt: skip

    def _start_tasks(self, engine: Engine) -> None:
        loop = asyncio.get_running_loop()
        engine.start_slots(self._worker_loop, self._settle)
        fetching = self._fetch(engine)
        self._fetching = WorkerTask(fetching, loop=loop, name="queue-system-fetcher", context=context_of(None))
        self._services = [
            Heartbeat(self.config, engine.fetcher, loop, engine.presence),
            Reclaimer(
                self.config,
                lambda: engine.fetcher.incarnation,
                engine.fetcher.now_ms,
                engine.fetcher.access,
                partial(soon_in, loop, self._reporter.taken_over),
            ),
            Discovery(self.config, self.queues, engine.fetcher.access),
            Retention(self.config, engine.fetcher.now_ms, engine.fetcher.access),
        ]
        for service in self._services:
            service.start()
        before_close(loop, self, QueueWorker._stop_services)
        cancel_before_close(loop, self._fetching)

    async def stop(self, *, grace: float | None = None) -> None:
        """Claim no more, wait `grace` s for running operations, hand back the rest, and sign off.

        None waits up to min(work_timeout, 25 s). What is handed back spends no attempt. A second call waits for the
        first.
        """
        longest_s = min(self.work_timeout, _LONGEST_GRACE_S) if grace is None else check_seconds("grace", grace)
        blame("it stopped its worker")
        await asyncio.shield(asyncio.Task(self._stop(longest_s), context=context_of(None)))

    @property
    def _is_stranded(self) -> bool:
        """Whether its event loop was closed, which nobody had stopped it before."""
        return self._engine is not None and self._engine.executor.is_stranded

    async def _leave_closed_loop(self) -> None:
        """Hand back what a life in an event loop that was closed meanwhile still holds, and be ready for another."""
        if not self._is_stranded or self._engine is None or not (self._running or self._lifecycle.locked()):
            return
        engine = self._engine
        self._engine = None
        self._running = False
        self._lifecycle = asyncio.Lock()
        self._stop_services()
        await in_daemon_thread(engine.close_blocking)

    async def _stop(self, grace_s: float) -> None:
        await self._leave_closed_loop()
        async with self._lifecycle:
            if not self._running or self._engine is None:
                return
            engine = self._engine
            try:
                await engine.wind_down(grace_s)
            finally:
                self._running = False
                self._stop_services()
                await engine.end_tasks(self._fetching)
                self._importer.close()
                await engine.close()
                self.config.metrics.flush()
                self.config.log.info("worker stopped", incarnation=engine.fetcher.incarnation)

    def _stop_services(self) -> None:
        for service in self._services:
            service.stop()

    async def _fetch(self, engine: Engine) -> None:
        try:
            await engine.fetcher.run()
        except asyncio.CancelledError:
            if self._running and not is_being_closed(engine.loop):  # cancelled from outside, as by asyncio.run
                self._running = False
                self._stop_services()
                await engine.leave()
            raise

    def _open_engine(self, slots: int) -> Engine:
        return Engine.open(self.config, slots, self._settler, self._reporter, self.queues, self._rests)

    async def _worker_loop(self, worker_id: int) -> None:
        """Handle one delivery after another in one slot. All slots together let the event loop breathe every ms."""
        engine = self._engine
        if engine is None:
            return
        slot = engine.executor.slots[worker_id]
        dispatcher = engine.fetcher.dispatcher
        clean = contextvars.copy_context()
        while not slot.closing:
            try:
                delivery = await dispatcher.take()
                slot.delivery = delivery
                slot.noted = NEVER
                await self._handle(engine, slot, delivery)
                slot.delivery = None
                if slot.exit is not None:
                    raise slot.exit
                if differs(contextvars.copy_context(), clean) and not slot.closing:
                    clean.run(engine.start_slot, self._worker_loop, worker_id)  # what was set must not reach the next
                    return
                if slot.started > dispatcher.slice_until:
                    await dispatcher.breathe()
            except asyncio.CancelledError:
                pass  # it comes late, such as from a timer that an operation left behind
            except BaseException as error:
                if slot.delivery is None or is_the_end(error, slot.task):
                    raise
                self._reject(engine, slot.delivery, error)
            finally:
                slot.delivery = None
            if slot.task is not None and slot.task.cancelling() and not slot.closing:
                clean.run(engine.start_slot, self._worker_loop, worker_id)  # whoever cancels may do so for ever
                return

    def _reject(self, engine: Engine, delivery: Delivery, error: BaseException) -> None:
        self.config.log.error("handling failed", operation_id=delivery.operation_id, exc_info=error)
        found = trace(error) if self.config.tracebacks else None
        reject = Reject(f"handling failed: {type(error).__name__}", type(error).__name__, trace=found)
        engine.fetcher.put(self._settler.settle(delivery, reject))

    async def _handle(self, engine: Engine, slot: Slot, delivery: Delivery) -> None:
        """Resolve, execute, judge, settle: the way of one operation. A callback comes as a delivery of its own."""
        operation = delivery.operation
        slot.started = started = SYSTEM_CLOCK.monotonic()
        started_ms = engine.fetcher.server_ms(started)
        tracing = self.config.tracing
        attempt = None
        if tracing is not None:
            attempt = tracing.processing(delivery.queue, delivery.operation_id, operation)
        outcome: Outcome
        try:
            processor, argument, limit_s, limit_name = self._resolve(operation, started_ms)
        except UndecodableItemError as error:
            outcome = Unprocessable(str(error), type(error).__name__, trace=trace(error))
        else:
            if limit_s <= 0:
                outcome = Raised.before_start(limit_name)
            elif processor is None:
                outcome = await self._importer.run(engine, slot, delivery, argument, (limit_s, limit_name))
            else:
                if engine.executor.threads.abandoned and engine.executor.refuses(processor):
                    engine.hold_back(delivery)
                elif self._rests.queues:
                    self._rests.resolved(queue_name(delivery.queue))
                outcome = await engine.executor.run(slot, processor, argument, limit_s, limit_name)
        if slot.abandoned:
            verdict: Verdict = Release()  # it is settled already, or handed back
        else:
            verdict = self._settle(engine, delivery, outcome, started, started_ms)
        if attempt is not None:
            attempt.end(outcome, verdict)

    def _settle(self, engine: Engine, delivery: Delivery, outcome: Outcome, started: float, started_ms: int) -> Verdict:
        """Judge an outcome and settle the delivery with the verdict."""
        fetcher = engine.fetcher
        ended = SYSTEM_CLOCK.monotonic()
        ended_ms = fetcher.server_ms(ended)
        verdict = judge(delivery.operation, outcome, started_ms / 1000, ended_ms / 1000)
        if type(verdict) is not Complete and not isinstance(verdict, Complete | Release):
            if self.on_error is not None:
                self.on_error(delivery.operation_id, verdict)
            if not self.config.tracebacks:
                verdict = replace(verdict, trace=None)
            timed_out = isinstance(outcome, Raised) and outcome.timed_out
            self._reporter.judged(delivery.operation_id, delivery.operation.processor, verdict, timed_out=timed_out)
        settlement = self._settler.settle(delivery, verdict, Timing(started_ms, ended_ms, ended - started))
        if settlement.problem:
            self._reporter.lost_result(delivery.operation_id, delivery.operation.processor, settlement.problem)
        if self._local.known and not (settlement.follow_up or settlement.form) and settlement.verb not in _NOT_THE_END:
            self._local.release(delivery.operation)
        fetcher.put(settlement)
        return verdict

    def _resolve(self, operation: Operation, started_ms: int) -> tuple[Processor | None, Any, float, str]:
        """Return what to call, None if it must be imported, with what, for how long at most and by whose limit."""
        if self.config.sealing is not None:
            operation = self.config.sealing.open(operation)
        if operation.phase:
            return self._run_callback, operation, self.work_timeout, _WORKER_LIMIT
        processor = self.config.registry.known(operation.processor, operation.processor_module)
        if operation.timeout is None and operation.retry_timeout is None:
            return processor, operation.entity, self.work_timeout, _WORKER_LIMIT
        return processor, operation.entity, *self._limit(operation, started_ms)

    def _limit(self, operation: Operation, started_ms: int) -> tuple[float, str]:
        """Return the limit of this attempt in s, and whose it is: its own, the worker's, or that of all attempts."""
        limit = self.work_timeout
        name = _WORKER_LIMIT
        own = operation.timeout
        if own is not None:
            if own <= limit or isinstance(limit, _Unset):
                limit = own
                name = _OWN_LIMIT
            else:
                name = f"{_WORKER_LIMIT}, below the operation's own timeout of {own:g} s"
                self._log_conflict(operation)
        if operation.retry_timeout is not None:
            first = operation.first_attempt_time
            left = operation.retry_timeout - (0.0 if first is None else started_ms / 1000 - first)
            if left < limit:
                limit = left
                name = f"what was left of the total timeout of {operation.retry_timeout:g} s"
        return max(limit, 0.0), name

    def _log_conflict(self, operation: Operation) -> None:
        if self._conflicts.ready():
            self.config.log.warning(
                "an operation's timeout is above the work_timeout that this worker was given, which holds",
                operation_id=operation.operation_id, processor=operation.processor, timeout_s=operation.timeout,
                work_timeout_s=self.work_timeout,
            )  # fmt: skip

    async def _run_callback(self, operation: Operation) -> None:
        name, module = callback_reference(operation)
        await self._importer.check(name, module)
        await self._execute_callback(name, module, callback_data(operation))

    @retry_with_backoff(max_retries=3, base_delay=0.1, max_delay=2.0)
    async def _execute_callback(self, callback_name: str, callback_module: str | None, data: dict[str, Any]) -> None:
        """Run a callback with its data; one that raises is tried again up to three times."""
        callback = await self._importer.load(callback_name, callback_module)
        if inspect.iscoroutinefunction(callback):
            finished(await callback(data))
            return
        run = in_daemon_thread if self._engine is None else self._engine.executor.threads.run
        result = await run(callback, data)
        finished(await result if inspect.isawaitable(result) else result)

    @circuit_breaker(name=breaker_name, **BREAKER)
    async def _process_queue_item(self, worker_id: int) -> bool:
        """Claim and handle a single item outside the engine; False when there is none. `worker_id` is for the log."""
        return await self._handle_one(worker_id, b"")

    async def _handle_queue_item(self, worker_id: int, queue: bytes, item_data: bytes) -> bool:
        """Handle an item that the caller took from the list `queue`: in flight from here on, settled at the end."""
        name = queue.removeprefix(self.config.queue_prefix.encode())
        return await self._handle_one(worker_id, join_value(name, item_data))

    async def _handle_one(self, worker_id: int, adopt: bytes) -> bool:
        engine = self._open_engine(1)
        heartbeat = Heartbeat(self.config, engine.fetcher, engine.loop, engine.presence)
        try:
            return await engine.handle_one(worker_id, adopt, heartbeat.start, self._handle)
        finally:
            heartbeat.stop()
            await engine.close()
