"""Threads for sync processors; one that is abandoned at a time limit is replaced."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from queue_system.execution.runners.forks import leave_if_forked
from queue_system.tracebacks import where

_LEAST_BOUND: Final = 20
_BOUND_FACTOR: Final = 4


def most_abandoned(size: int) -> int:
    """Return how many threads of a pool may be abandoned before it refuses to begin anything."""
    return max(_LEAST_BOUND, _BOUND_FACTOR * size)


class _Call:
    """One call on its way through a thread."""

    __slots__ = ("abandoned", "argument", "context", "error", "fn", "future", "result", "running", "thread")

    def __init__(self, fn: Callable[[Any], Any], argument: Any, future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.argument = argument
        self.future = future
        self.context = contextvars.copy_context()
        self.running = False
        self.thread = 0
        self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None


class ThreadPool:
    """Runs sync functions for one event loop, at most `size` at once."""

    def __init__(
        self, size: int, loop: asyncio.AbstractEventLoop, on_abandoned: Callable[[], None] = lambda: None
    ) -> None:
        self._size = size
        self._on_abandoned = on_abandoned
        self._home = os.getpid()
        self._loop = loop
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._finished: deque[_Call] = deque()
        self._lock = threading.Lock()
        self._notified = False
        self._threads = 0
        self._busy = 0
        self.abandoned = 0
        """How many threads were given up at a time limit and still run."""
        self.most_abandoned = most_abandoned(size)
        """With this many, no further function is begun."""

    async def run(self, fn: Callable[[Any], Any], argument: Any) -> Any:
        """Run `fn(argument)` in a thread with a copied context and return its result or raise its error.

        Cancelling the caller abandons the thread: it runs on, but its result is dropped and another takes its place.
        """
        if self.abandoned >= self.most_abandoned:
            raise RuntimeError(self.refusal)
        call = _Call(fn, argument, self._loop.create_future())
        self._busy += 1
        if self._threads < min(self._busy, self._size):
            self._spawn()
        self._calls.put(call)
        try:
            return await call.future
        except asyncio.CancelledError as error:
            with self._lock:
                call.abandoned = True
                running = call.running
                if running:
                    error.__traceback__ = where(call.thread, ThreadPool._serve.__code__)
                    self.abandoned += 1
                    self._threads -= 1
            if running:
                if not self._calls.empty():
                    self._spawn()
                self._on_abandoned()
            raise
        finally:
            self._busy -= 1

    @property
    def refusal(self) -> str:
        """Why no function is begun."""
        return f"{self.abandoned} threads passed their time limit and still run, so no further one is used"

    def submit(self, fn: Callable[..., Any], *args: Any) -> asyncio.Task[Any]:
        """Run `fn(*args)` as `run` does, and return what awaits it."""
        return asyncio.Task(self.run(lambda _: fn(*args), None), loop=self._loop)

    def close(self) -> None:
        """Let idle threads end; abandoned ones end after their call."""
        for _ in range(self._threads):
            self._calls.put(None)
        self._threads = 0

    def _spawn(self) -> None:
        self._threads += 1
        threading.Thread(target=self._serve, name="queue-system-processor", daemon=True).start()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            with self._lock:
                if call.abandoned:
                    del call
                    continue
                call.running = True
                call.thread = threading.get_ident()
            try:
                call.result = call.context.run(call.fn, call.argument)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the waiting slot judges it
                call.error = error
            leave_if_forked(self._home, call.error)
            if self._was_abandoned(call):
                return  # another thread has taken this one's place
            self._finished.append(call)
            if not self._notified:
                self._notified = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits any more
                    return
            del call  # an idle thread keeps nothing alive

    def _was_abandoned(self, call: _Call) -> bool:
        with self._lock:
            call.running = False
            self.abandoned -= call.abandoned
            return call.abandoned

    def _deliver(self) -> None:
        self._notified = False
        while self._finished:
            call = self._finished.popleft()
            if call.future.done():
                continue
            if call.error is None:
                call.future.set_result(call.result)
            elif issubclass(type(call.error), StopIteration):  # a future cannot carry it
                stopped = RuntimeError("the processor raised StopIteration")
                stopped.__cause__ = call.error
                call.future.set_exception(stopped)
            else:
                call.future.set_exception(call.error)
