"""QueueWorker: its start, its slots and its stop. The way of one operation is that of `execution/attempt.py`."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

from queue_system.broker.loop_end import before_close, cancel_before_close, is_being_closed
from queue_system.broker.shard import BREAKER
from queue_system.config import QueueConfig, breaker_name
from queue_system.errors import (
    AccessDeniedError,
    CertificateError,
    InvalidInputError,
    QueueSystemError,
    UnsupportedServerError,
)
from queue_system.execution.attempt import AttemptRunner, OnError
from queue_system.execution.callbacks import Callbacks
from queue_system.execution.ending import Ending
from queue_system.execution.engine import Engine
from queue_system.execution.importing import Importer
from queue_system.execution.limits import AttemptLimits, DefaultLimit
from queue_system.execution.reporting import Reporter
from queue_system.execution.settlement import Settler
from queue_system.execution.single_item import handle_one
from queue_system.execution.slots import NEVER, WorkerTask, blame, context_of, differs, is_the_end
from queue_system.execution.snapshot import WorkerSnapshot, snapshot_of
from queue_system.loop import soon_in
from queue_system.maintenance.discovery import Discovery
from queue_system.maintenance.heartbeat import Heartbeat
from queue_system.maintenance.reclaimer import Reclaimer
from queue_system.maintenance.retention import Retention
from queue_system.maintenance.service import PeriodicService
from queue_system.model.formats import join_value
from queue_system.model.keys import check_queue_name
from queue_system.model.middleware import name_of
from queue_system.resilience import circuit_breaker, in_daemon_thread, retry_with_backoff
from queue_system.validation import check_instance, check_list, check_seconds, check_whole, refused

_LONGEST_GRACE_S = 25.0
_MOST_SLOTS = 100_000
_HOPELESS = (AccessDeniedError, CertificateError, InvalidInputError, UnsupportedServerError)
"""What keeps a worker from starting, since trying again would change nothing."""
_HOW_MANY = "use the number of operations that may run at once"


_WORK_TIMEOUT = DefaultLimit(30.0)


class QueueWorker:
    """Processes queued operations in the event loop that calls `start`.

    Args:
        config: shared with the manager.
        max_workers: how many operations run at once.
        work_timeout: limit of one attempt, in s, and of the wait for running operations in `stop`. The default limits
            only operations that were enqueued without a `timeout` of their own; a number that is given limits all.
        queues: names of the queues served. None: all.

    Raises:
        InvalidInputError: a value is wrong; `field` names it.
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
        if queues is not None and not check_list("queues", queues, "a list of queue names"):
            raise refused("queues", "at least one queue name", "an empty list", "use None for all queues")
        self.queues = tuple(check_queue_name(name, "queues") for name in queues or ())
        self._settler = Settler(
            f"{socket.gethostname()}:{os.getpid()}",
            config.result_ttl,
            config.max_item_bytes,
            signer=config.signer,
            cipher=config.cipher,
        )
        self._reporter = Reporter(config.metrics, config.log, config.observers)
        self._rests = self._reporter.new_rests()
        self._importer = Importer(config.registry, self._rests)
        self._callbacks = Callbacks(self._importer, self._execute_callback)
        limit = work_timeout if isinstance(work_timeout, DefaultLimit) else limit_s
        self._limits = AttemptLimits(limit, config.log)
        self._attempts = AttemptRunner(
            config, self._limits, self._importer, self._callbacks, self._settler, self._reporter
        )
        self._engine: Engine | None = None
        self._ending: Ending | None = None
        """How the engine ends."""
        self._turns: asyncio.Task[None] | None = None
        self._services: list[PeriodicService] = []
        self._running = False
        self._lifecycle = asyncio.Lock()
        self.owns_process = False
        """Whether the process runs this worker alone, so that an end that nobody asked for counts as its death."""

    @property
    def running(self) -> bool:
        """Whether the worker has been started and not stopped, and its event loop not been closed."""
        return self._running and not self._is_stranded

    @property
    def abandoned(self) -> int:
        """How many threads and tasks of operations were given up at their limit and still run."""
        return 0 if self._engine is None else self._engine.executor.abandoned

    @property
    def work_timeout(self) -> float:
        """Limit of one attempt, in s, and of the wait for running operations in `stop`."""
        return self._limits.work_timeout

    @work_timeout.setter
    def work_timeout(self, seconds: float) -> None:
        self._limits.work_timeout = seconds

    @property
    def on_error(self) -> OnError | None:
        """Called with an operation's id and the verdict on every execution that went wrong; for tests."""
        return self._attempts.on_error

    @on_error.setter
    def on_error(self, on_error: OnError | None) -> None:
        self._attempts.on_error = on_error

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop in which it was started last; None before that."""
        return None if self._turns is None else self._turns.get_loop()

    def snapshot(self) -> WorkerSnapshot:
        """Return the worker's own state, without asking the server. Quick, and callable from any thread."""
        engine = self._engine
        turns = self._turns
        if engine is None or turns is None:
            return WorkerSnapshot(queues=self.queues, slots=self.max_workers)
        heartbeat = next((service for service in self._services if isinstance(service, Heartbeat)), None)
        return snapshot_of(
            engine,
            self.queues,
            running=self.running,
            takes_turns=not turns.done(),
            round_began=None if heartbeat is None or not heartbeat.alive else heartbeat.round_began,
        )

    async def start(self) -> None:
        """Start processing; returns at once. A second call does nothing.

        An unreachable server is tried again in the background. Raises AccessDeniedError for wrong credentials,
        CertificateError where TLS fails over a certificate, UnsupportedServerError for a server that holds no queues,
        and InvalidInputError for a URL from the environment that names no server.
        """
        await self._leave_closed_loop()
        async with self._lifecycle:
            if self._running:
                return
            engine = self._engine = self._open_engine(self.max_workers)
            ending = self._ending = Ending(engine)
            try:
                await in_daemon_thread(self.config.prepare)  # which may have to start a server
                await engine.ask_admission()
                await engine.turn()
            except QueueSystemError as error:
                if isinstance(error, _HOPELESS):
                    await ending.discard()
                    raise
                problem = {"error": str(error), "error_type": type(error).__name__}
                self.config.log.error("server trouble at start: trying again", **problem)
            except BaseException:  # cancelled: what the turn may have claimed goes back
                await ending.leave()
                raise
            self._running = True
            self._start_tasks(engine, ending)
            self._log_start(engine)

    def _log_start(self, engine: Engine) -> None:
        names = ",".join([name_of(entry) for entry in self.config.middleware])
        middleware = {"middleware": names} if names else {}
        self.config.log.info(
            "worker started", incarnation=engine.incarnation, server=self.config.address,
            prefix=self.config.queue_prefix, queues=",".join(self.queues) or "all", concurrency=self.max_workers,
            **self.config.primary, **middleware,
        )  # fmt: skip

    def _start_tasks(self, engine: Engine, ending: Ending) -> None:
        loop = asyncio.get_running_loop()
        engine.start_slots(self._worker_loop, self._attempts.give_up)
        turns = self._take_turns(engine, ending)
        self._turns = WorkerTask(turns, loop=loop, name="queue-system-engine", context=context_of(None))
        reclaimer = Reclaimer(
            self.config,
            engine.shard,
            lambda: engine.incarnation,
            engine.clock.now_ms,
            engine.access,
            partial(soon_in, loop, self._reporter.taken_over),
        )
        self._services = [
            Heartbeat(self.config, engine.shard, engine, loop, engine.presence),
            reclaimer,
            Discovery(self.config, engine.shard, self.queues, engine.access, reclaimer.sits_out),
            Retention(self.config, engine.shard, engine.clock.now_ms, engine.access),
        ]
        for service in self._services:
            service.start()
        before_close(loop, self, QueueWorker._stop_services)
        cancel_before_close(loop, self._turns)

    async def stop(self, *, grace: float | None = None) -> None:
        """Stop claiming, wait `grace` seconds for running operations, hand back the rest, and sign off.

        None waits up to min(work_timeout, 25 s). What is handed back spends no attempt. A second call waits for the
        first.
        """
        longest_s = min(self.work_timeout, _LONGEST_GRACE_S) if grace is None else check_seconds("grace", grace)
        blame("it stopped its worker")
        await asyncio.shield(asyncio.Task(self._stop(longest_s), context=context_of(None)))

    def hand_back(self) -> None:
        """Hand back all that it holds, from another thread, because its event loop is blocked; blocks itself.

        What runs goes on, and runs again elsewhere: the process has to end now.
        """
        if (ending := self._ending) is not None:
            ending.leave_blocked()

    async def break_off(self) -> None:
        """End as if the event loop were ended: what runs is cancelled and handed back.

        Where the worker owns its process, what runs is left to those who take over from dead workers.
        """
        turns = self._turns
        if turns is not None and not turns.done():
            turns.cancel()
            await asyncio.wait({turns})

    async def kill(self) -> str | None:
        """End at once, as `kill -9` would: nothing is settled or handed back, async processors are cancelled.

        Return the id under which all that it held stays booked until its lease runs out; None if it does not run. Tests
        do not wait for that with `queue_system.testing.kill_worker`.
        """
        engine = self._engine
        ending = self._ending
        if engine is None or ending is None or not self.running:
            return None
        worker_id = engine.incarnation
        self._running = False  # so that the cancelled tasks do not hand back
        self._stop_services()
        engine.inflight.renew()  # from here on, verdicts belong to nobody and are dropped
        ended = asyncio.ensure_future(ending.end_tasks(self._turns))
        engine.drop_connections()
        await ended
        await ending.discard()
        return worker_id

    @property
    def _is_stranded(self) -> bool:
        """Whether its event loop was closed before the worker was stopped."""
        return self._engine is not None and self._engine.executor.is_stranded

    async def _leave_closed_loop(self) -> None:
        """Hand back what a life in an event loop that was closed meanwhile still holds, and be ready for another."""
        ending = self._ending
        if not self._is_stranded or ending is None or not (self._running or self._lifecycle.locked()):
            return
        self._engine = self._ending = None
        self._running = False
        self._lifecycle = asyncio.Lock()
        self._stop_services()
        await in_daemon_thread(ending.close_blocking)

    async def _stop(self, grace_s: float) -> None:
        await self._leave_closed_loop()
        async with self._lifecycle:
            engine = self._engine
            ending = self._ending
            if not self._running or engine is None or ending is None:
                return
            try:
                await ending.wind_down(grace_s)
            finally:
                self._running = False
                self._stop_services()
                await ending.end_tasks(self._turns)
                self._importer.close()
                await ending.close()
                self.config.metrics.flush()
                self.config.log.info("worker stopped", incarnation=engine.incarnation)

    def _stop_services(self) -> None:
        for service in self._services:
            service.stop()

    async def _take_turns(self, engine: Engine, ending: Ending) -> None:
        try:
            await engine.run()
        except asyncio.CancelledError:
            if self._running and not is_being_closed(engine.loop):  # cancelled from outside, as by asyncio.run
                self._running = False
                self._stop_services()
                await ending.leave(dies=self.owns_process)
            raise

    def _open_engine(self, slots: int) -> Engine:
        return Engine(self.config, slots, self._settler, self._reporter, self.queues, self._rests)

    async def _worker_loop(self, worker_id: int) -> None:
        """Handle one delivery after another in one slot. All slots together let the event loop breathe every ms."""
        engine = self._engine
        if engine is None:
            return
        slot = engine.executor.slots[worker_id]
        dispatcher = engine.dispatcher
        clean = contextvars.copy_context()
        while not slot.closing:
            try:
                delivery = await dispatcher.take()
                slot.delivery = delivery
                slot.noted = NEVER
                await self._attempts.run(engine, slot, delivery)
                slot.delivery = None
                if slot.exit is not None:
                    raise slot.exit
                if differs(contextvars.copy_context(), clean) and not slot.closing:
                    clean.run(engine.tasks.start, worker_id)  # what was set must not reach the next
                    return
                if slot.started > dispatcher.slice_until:
                    await dispatcher.breathe()
            except asyncio.CancelledError:
                pass  # it comes late, such as from a timer that an operation left behind
            except BaseException as error:
                if slot.delivery is None or is_the_end(error, slot.task):
                    raise
                self._attempts.reject(engine, slot.delivery, error)
            finally:
                slot.delivery = None
            if slot.task is not None and slot.task.cancelling() and not slot.closing:
                clean.run(engine.tasks.start, worker_id)  # what cancels it may do so for ever
                return

    @retry_with_backoff(max_retries=3, base_delay=0.1, max_delay=2.0)
    async def _execute_callback(self, callback_name: str, callback_module: str | None, data: dict[str, Any]) -> None:
        """Run a callback with its data; one that raises is tried again up to three times."""
        in_thread = in_daemon_thread if self._engine is None else self._engine.executor.threads.run
        await self._callbacks.call(callback_name, callback_module, data, in_thread)

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
        ending = Ending(engine)
        heartbeat = Heartbeat(self.config, engine.shard, engine, engine.loop, engine.presence)
        try:
            return await handle_one(engine, ending, worker_id, adopt, heartbeat.start, self._attempts.run)
        finally:
            heartbeat.stop()
            await ending.close()
