"""One worker in this process, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

from queue_system.clock import SYSTEM_CLOCK
from queue_system.execution.slots import WorkerTask
from queue_system.loop import run as run_loop
from queue_system.metrics import LogThrottle, StructuredLogger
from queue_system.monitoring.health import WorkerHealth, health_of
from queue_system.supervision.leaving import Leaving
from queue_system.supervision.observing import answering, count
from queue_system.supervision.settings import WorkerSettings
from queue_system.supervision.signals import LEAVE, Departure, end_timers, handling
from queue_system.supervision.systemd import Notifier
from queue_system.supervision.targets import load_worker
from queue_system.supervision.usage import is_exhausted, resident_mb, running_operations, settled_attempts
from queue_system.worker import QueueWorker

DONE: Final = 0
FAILED: Final = 1
REFUSED: Final = 2
RECYCLED: Final = 75
"""The exit code of a child that wants to be replaced; `EX_TEMPFAIL` of sysexits.h."""

PULSE_S: Final = 1.0
"""How often, at least, it reports its health."""
_LOOK_AGAIN_S: Final = 0.05
_ERRORS_EVERY_S: Final = 60.0
_MOST_ERRORS: Final = 10
"""How many errors of callbacks are shown within that time."""

Tell = Callable[[WorkerHealth], None]
T = TypeVar("T")


def serve(settings: WorkerSettings, *, ends_process: bool = False) -> int:
    """Run one worker until a signal or its own settings end it, and return the exit code.

    With `ends_process`, this process ends with that code even if something that runs in it does not.

    Raises:
        InvalidInputError: the settings or their target make no sense.
        AccessDeniedError: the server refuses the credentials.
    """
    departure = Departure()
    notifier = Notifier(os.environ)
    serving = Serving(settings, departure, notifier, ends_process=ends_process)
    with handling(departure.handler, *LEAVE):
        return run_to_end(serving, serving.run())


def run_to_end(serving: Serving, work: Coroutine[Any, Any, int]) -> int:
    """Run what runs a worker, and return the exit code; whatever operations did to the event loop changes none."""
    try:
        return run_loop(work, WorkerTask)
    except BaseException as error:
        if serving.worker is None or not serving.ends_process:
            raise
        end_timers()
        return serving.end_by(error, serving.worker.config.log)


class Serving:
    """The life of one worker. `tell` gets its health once a second."""

    def __init__(
        self,
        settings: WorkerSettings,
        departure: Departure,
        notifier: Notifier,
        tell: Tell | None = None,
        *,
        ends_process: bool = False,
    ) -> None:
        self._settings = settings
        self._departure = departure
        self._notifier = notifier
        self._tell = tell
        self._stopping = False
        self._told_of_signals = LogThrottle(60.0, SYSTEM_CLOCK)
        self.ends_process = ends_process
        self.worker: QueueWorker | None = None
        """What was started."""
        self._code: int | None = None
        self._leaving = Leaving(lambda: departure.asked, settings.grace, DONE) if ends_process else None

    def end_by(self, error: BaseException, log: StructuredLogger) -> int:
        """Report an error that has ended the event loop, or kept it from being closed; return the exit code."""
        if self._code is None:
            why = (
                "an error of something that runs here has ended this worker's event loop: the process ends,"
                " and what runs comes back as from a worker that died"
            )
            log.error(why, exit_code=FAILED, exc_info=error)
            return FAILED
        why = "the worker has left, and an error of something that ran here keeps its event loop from closing in order"
        log.warning(why, exit_code=self._code, exc_info=error)
        return self._code

    async def run(self) -> int:
        """Load, start, wait for a reason to leave, and leave within the grace time."""
        worker = await self._load()
        if worker is None:
            return DONE
        with self._observed(worker):
            code = FAILED
            if self._leaving is not None:
                self._leaving.watch(worker)
            try:
                await worker.start()
                worker.owns_process = True  # nobody else has a program in it
                self.worker = worker
                asyncio.get_running_loop().set_exception_handler(_FewErrors(worker.config.log).tell)
                try:
                    code = await self._first_reason(worker)
                except asyncio.CancelledError:
                    if not self._departure.asked:
                        await worker.break_off()
                    raise
                finally:
                    self._notifier.stopping()
                    end_timers(repeating=True)
                    await self._stop(worker)
                    end_timers()
                self._code = code
            finally:
                if self._leaving is not None:
                    self._leaving.left(code)
            return code

    async def _load(self) -> QueueWorker | None:
        """Load the worker; None if something asks it to leave before, however long its target takes to import."""
        loading = _begin(load_worker(self._settings))
        asked = _begin(self._asked())
        try:
            await asyncio.wait((loading, asked), return_when=asyncio.FIRST_COMPLETED)
            return None if self._departure.asked else loading.result()
        finally:
            for task in (loading, asked):
                task.cancel()
            await asyncio.gather(loading, asked, return_exceptions=True)

    @contextlib.contextmanager
    def _observed(self, worker: QueueWorker) -> Iterator[None]:
        address = self._settings.http
        if address is not None:
            count(worker.config)
        if address is None or self._tell is not None:  # a supervisor answers for all its children
            yield
            return
        with answering(worker.config, lambda: [health_of(worker)], address, self._settings.allowed_hosts):
            yield

    async def _first_reason(self, worker: QueueWorker) -> int:
        """Wait until something asks the worker to leave, and return the exit code that this means."""
        reasons: list[Coroutine[Any, Any, int]] = [self._asked(), self._watch(worker)]
        if self._settings.burst:
            reasons.append(self._exhausted(worker))
        if self._settings.recycled:
            reasons.append(self._worn_out(worker))
        tasks = [_begin(reason) for reason in reasons]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop(self, worker: QueueWorker) -> None:
        """Stop, while supervisor and service manager still hear that this process lives."""
        self._stopping = True
        worker.config.log.info("worker drains", grace_s=self._settings.grace)
        pulse = _begin(self._watch(worker))
        try:
            await worker.stop(grace=self._settings.grace)
        finally:
            pulse.cancel()
            await asyncio.gather(pulse, return_exceptions=True)

    async def _asked(self) -> int:
        await self._departure.wait()
        return DONE

    async def _watch(self, worker: QueueWorker) -> int:
        """Report the worker's health; return when only a new process helps."""
        told = False
        while True:
            health = health_of(worker)
            if health.consuming:
                self._notifier.ready()
            if not (health.fetching or self._stopping):
                worker.config.log.error("the worker has ended by itself", incarnation=health.incarnation)
                return FAILED
            self._notifier.alive()
            self._keep_signals(worker)
            if self._tell is not None:
                self._tell(health)
            told = told or health.consuming
            await asyncio.sleep(min(PULSE_S, self._notifier.interval_s / 2) if told else _LOOK_AGAIN_S)

    def _keep_signals(self, worker: QueueWorker) -> None:
        """Take the signals back from whatever runs here and has replaced their handlers: the worker would be deaf."""
        signals = self._departure.take_signals()
        if signals and self._told_of_signals.ready():
            worker.config.log.warning(
                "something that runs here has replaced or blocked signal handlers of this worker: they are restored",
                signals=", ".join(signals), running=", ".join(running_operations(worker)) or "nothing",
            )  # fmt: skip

    async def _exhausted(self, worker: QueueWorker) -> int:
        while not await is_exhausted(worker):  # noqa: ASYNC110 - the server sends no event when it has no more
            await asyncio.sleep(_LOOK_AGAIN_S)
        worker.config.log.info("no item is ready and nothing runs: leaving")
        return DONE

    async def _worn_out(self, worker: QueueWorker) -> int:
        most = self._settings.max_operations
        largest_mb = self._settings.max_memory_mb
        while True:
            attempts = settled_attempts(worker)
            memory_mb = resident_mb()
            if (most is not None and attempts >= most) or (
                largest_mb is not None and attempts and memory_mb > largest_mb
            ):
                worker.config.log.info("process is replaced", attempts=attempts, memory_mb=round(memory_mb))
                return RECYCLED
            await asyncio.sleep(_LOOK_AGAIN_S)


class _FewErrors:
    """Lets the event loop report a few errors of callbacks that operations have left behind, and counts the rest.

    A timer that fails again and again would fill the log for as long as the process lives.
    """

    def __init__(self, log: StructuredLogger) -> None:
        self._log = log
        self._throttle = LogThrottle(_ERRORS_EVERY_S, SYSTEM_CLOCK)
        self._told = self._untold = 0

    def tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an error that reached the event loop."""
        if self._throttle.ready():
            if self._untold:
                self._log.warning("more errors reached the event loop than were shown", errors=self._untold)
            self._told = self._untold = 0
        if self._told == _MOST_ERRORS:
            self._untold += 1
            return
        self._told += 1
        loop.default_exception_handler(context)


def _begin(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that no operation can cancel."""
    return WorkerTask(work, loop=asyncio.get_running_loop())
