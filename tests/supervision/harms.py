"""What code of an application can do to the process of a worker that runs it. Never does any of it by itself."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import threading
import time
from types import FrameType
from typing import Any


def freeze_the_clocks() -> None:
    """Let time stand still, as libraries for tests do."""
    moment = time.monotonic()
    time.time = time.monotonic = time.perf_counter = lambda: moment


def break_the_clocks() -> None:
    """Let all that tells the time or waits raise."""
    time.monotonic = time.sleep = time.perf_counter = _refuse


def set_a_timer() -> None:
    """Leave a timer behind, whose signals come for ever."""
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)


def set_a_timer_whose_signal_exits() -> None:
    """Leave one behind whose handler exits."""
    signal.signal(signal.SIGALRM, _leave)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)


def refuse_tasks() -> None:
    """Let the event loop make no tasks any more."""
    asyncio.get_running_loop().set_task_factory(_refuse)


def limit_the_memory() -> None:
    """Allow the process hardly any memory, so that a thread that is begun dies before its first line."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.getrlimit(resource.RLIMIT_AS)[1]))


def keep_the_locks_of_logging() -> None:
    """Let nobody log any more."""
    begun = threading.Event()
    threading.Thread(target=_keep_locks, args=(begun,), daemon=True).start()
    begun.wait()


def fail_by_a_timer_for_ever() -> None:
    """Leave a callback behind that fails again and again."""
    loop = asyncio.get_running_loop()

    def fail() -> None:
        loop.call_later(0.001, fail)
        raise ValueError("a timer that nobody stops")

    loop.call_soon(fail)


def _keep_locks(begun: threading.Event) -> None:
    for handler in logging.getLogger().handlers:
        handler.acquire()
    begun.set()
    threading.Event().wait()


def _refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("replaced")


def _late(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError("too late")


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
