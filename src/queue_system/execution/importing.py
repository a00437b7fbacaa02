"""Imports processors in threads, while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

from msgspec.structs import replace

from queue_system.errors import ImportFailedError, QueueSystemError, UnresolvableNameError
from queue_system.execution.delivery import Delivery
from queue_system.execution.engine import Engine
from queue_system.execution.executor import Around
from queue_system.execution.rests import Rests, full_name, may_be_known
from queue_system.execution.runners.forks import leave_if_forked
from queue_system.execution.slots import Slot
from queue_system.model.keys import queue_name
from queue_system.model.operation import Operation
from queue_system.model.registry import Processor, Registry
from queue_system.model.verdict import Outcome, Raised, Succeeded, Unprocessable
from queue_system.resilience import in_daemon_thread
from queue_system.tracebacks import trace


class Importer:
    """Resolves the names that a registry does not know yet, each in a thread of its own.

    An import that never ends holds one thread, however many operations wait for it: each of them gives up at its own
    limit.
    """

    def __init__(self, registry: Registry, rests: Rests) -> None:
        self._registry = registry
        self.rests = rests
        self._running: dict[tuple[str, str | None], asyncio.Task[Processor]] = {}

    async def run(
        self,
        engine: Engine,
        slot: Slot,
        delivery: Delivery,
        argument: Any,
        limit: tuple[float, str],
        around: Around | None = None,
    ) -> Outcome:
        """Import a processor that is not known yet, and run it within `around`, all within the attempt's limit."""
        operation = delivery.operation
        found = await engine.executor.run(slot, self._find, operation, *limit)
        match found:
            case Succeeded(UnresolvableNameError() as unknown):
                return self._unresolved(engine, delivery, unknown)
            case Succeeded(processor):
                self.rests.resolved(queue_name(delivery.queue))
                return await engine.executor.run(slot, processor, argument, *limit, around)
            case Raised(error, timed_out=timed_out):
                if timed_out:
                    error = f"{error}, while module {operation.processor_module!r} was imported"
                self._unresolved(engine, delivery, ImportFailedError(error))  # a queue of such rests, too
                return replace(found, error=error)
        return found

    def _unresolved(self, engine: Engine, delivery: Delivery, error: QueueSystemError) -> Unprocessable:
        """Judge an operation that names what this worker does not know; hand back others of a queue that now rests."""
        operation = delivery.operation
        if not may_be_known(operation.processor, operation.processor_module):
            return Unprocessable(str(error), type(error).__name__, exception=error)
        wait_s, must_wait = self.rests.missed(queue_name(delivery.queue), f"{full_name(operation)}: {error}")
        if engine.inflight.buffer and (resting := self.rests.resting()):
            engine.inflight.release_queues(resting)
        return Unprocessable(str(error), type(error).__name__, wait_s, must_wait, trace(error), error)

    async def _find(self, operation: Operation) -> Processor | UnresolvableNameError:
        """Return an operation's processor, or why its name leads to none. Raises ImportFailedError."""
        try:
            return await self.load(operation.processor, operation.processor_module)
        except UnresolvableNameError as error:
            return error

    async def load(self, name: str, module: str | None) -> Processor:
        """Return what a name leads to. Raises UnresolvableNameError or ImportFailedError."""
        if (known := self._registry.known(name, module)) is not None:
            return known
        key = name, module
        running = self._running.get(key)
        if running is None or running.get_loop() is not asyncio.get_running_loop():
            running = asyncio.Task(in_daemon_thread(self._resolve, os.getpid(), name, module))
            self._running[key] = running
            running.add_done_callback(lambda ended: self._end(key, ended))
        return await asyncio.shield(running)

    async def check(self, name: str, module: str | None) -> None:
        """Raise UnresolvableNameError if a name surely leads to nothing; an import that fails may yet succeed."""
        with contextlib.suppress(ImportFailedError):
            await self.load(name, module)

    def close(self) -> None:
        """Wait for no import any longer."""
        for running in self._running.values():
            running.cancel()

    def _resolve(self, home: int, name: str, module: str | None) -> Processor:
        try:
            return self._registry.resolve(name, module)
        finally:
            leave_if_forked(home)

    def _end(self, key: tuple[str, str | None], ended: asyncio.Task[Processor]) -> None:
        if self._running.get(key) is ended:
            del self._running[key]
        if not ended.cancelled():
            ended.exception()  # nothing may be left that awaits it
