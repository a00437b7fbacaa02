"""Calls in a thread of their own, with a limit."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

from queue_system.resilience.naming import qualified_name

__all__ = ["abandoned_threads", "call_in_thread", "in_daemon_thread"]

R = TypeVar("R")

_abandoned: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_abandoned_lock = threading.RLock()  # a signal handler may make a call, too
os.register_at_fork(
    before=_abandoned_lock.acquire, after_in_parent=_abandoned_lock.release, after_in_child=_abandoned_lock.release
)


class _Call(Generic[R]):
    """One call and its outcome, handed from the thread that runs it to the one that waits."""

    __slots__ = ("_args", "_error", "_fn", "_kwargs", "_result", "finished")

    def __init__(self, fn: Callable[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._result: R | None = None
        self._error: BaseException | None = None
        self.finished = threading.Event()

    def run(self) -> None:
        try:
            self._result = self._fn(*self._args, **self._kwargs)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._error = error
        finally:
            self.finished.set()

    def outcome(self) -> R:
        error = self._error
        self._error = None
        if error is None:
            return cast("R", self._result)
        try:
            raise error
        finally:
            del error  # breaks the cycle error -> traceback -> frame -> error


def call_in_thread(fn: Callable[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any], timeout: float) -> R:
    """Return or raise what `fn(*args, **kwargs)` does, run in a daemon thread with a copy of the caller's context.

    Raises TimeoutError after `timeout` seconds. The thread cannot be stopped: it is abandoned, goes on in the
    background, and `abandoned_threads` counts it until it ends.
    """
    call = _Call(fn, args, kwargs)
    context = contextvars.copy_context()
    name = f"call of {qualified_name(fn)}"
    thread = threading.Thread(target=context.run, args=(call.run,), name=name, daemon=True)
    thread.start()
    try:
        call.finished.wait(min(timeout, threading.TIMEOUT_MAX))
    finally:
        # Also reached by an interrupt of the wait, such as Ctrl-C.
        finished = call.finished.is_set()
        if not finished:
            with _abandoned_lock:
                _abandoned.add(thread)
    if not finished:
        message = f"{qualified_name(fn)} did not finish within {timeout:g} s; its thread goes on in the background"
        raise TimeoutError(message)
    return call.outcome()


def abandoned_threads() -> int:
    """The number of threads that passed their limit and still run."""
    with _abandoned_lock:
        return sum(thread.is_alive() for thread in _abandoned)


async def in_daemon_thread(fn: Callable[..., R], *args: object) -> R:
    """Run a blocking function in a daemon thread of its own and return its result or raise its error.

    Other than the event loop's default executor, it has no queue in which hung functions of others hold it up, and it
    never delays the exit of the process.
    """
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    call = _Call(fn, args, {})

    def finish() -> None:
        if not finished.done():
            finished.set_result(None)

    def work() -> None:
        call.run()
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(finish)

    threading.Thread(target=work, name=f"call of {qualified_name(fn)}", daemon=True).start()
    await finished
    return call.outcome()
