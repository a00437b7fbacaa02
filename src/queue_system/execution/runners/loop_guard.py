"""Keeps operations from ending the event loop that runs their worker, and lends them its threads."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from typing import Any, Final

from queue_system.clock import SYSTEM_CLOCK
from queue_system.execution.runners.own_interrupts import unwatch_interrupts, watch_interrupts
from queue_system.execution.slots import CURRENT, blame

_guarded: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, int]] = weakref.WeakKeyDictionary()


def guard_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Until `release_loop`, let no operation stop the loop, and run what it gives the default pool in daemon threads.

    Its timers keep to the clock of the system, whatever stands in for `time.monotonic`. Those threads delay neither
    the end of `asyncio.run` nor the exit of the process.
    """
    _guarded[loop] = _guarded.get(loop, 0) + 1
    if _guarded[loop] == 1:
        watch_interrupts()
        with contextlib.suppress(TypeError):  # a loop that cannot be changed is left as it is
            vars(loop).update(stop=_stop(loop.stop), run_in_executor=_run_in_executor(loop.run_in_executor))
            if type(loop).time is asyncio.BaseEventLoop.time:  # which reads what operations may replace
                vars(loop)["time"] = SYSTEM_CLOCK.monotonic


def release_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Undo `guard_loop`, once for each call of it."""
    _guarded[loop] = _guarded.get(loop, 0) - 1
    if _guarded[loop] <= 0:
        del _guarded[loop]
        unwatch_interrupts()
        with contextlib.suppress(TypeError):
            for name in ("stop", "run_in_executor"):  # the true time stays: what ends the loop needs it, too
                vars(loop).pop(name, None)


def _stop(stop: Callable[[], None]) -> Callable[[], None]:
    def guarded() -> None:
        if blame("it stopped the event loop"):
            raise RuntimeError("a processor cannot stop the event loop of its worker; raise an error to fail")
        stop()

    return guarded


def _run_in_executor(run: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        slot = CURRENT.get()
        if executor is not None or slot is None or slot.submit is None:
            return run(executor, func, *args)
        return slot.submit(func, *args)

    return guarded
