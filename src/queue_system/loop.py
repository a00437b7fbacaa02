"""Runs a program in the fastest event loop at hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_LAST_STANDARD_STREAM: Final = 2


def run(main: Coroutine[Any, Any, T], task: Callable[..., asyncio.Task[Any]] | None = None) -> T:
    """Run a coroutine as `asyncio.run` does, in uvloop's event loop where it is installed.

    `task` makes the task that runs it; who gives one handles SIGINT, too.
    `pip install 'redis-queue-system[uvloop]'` brings it; docs/benchmarks.md shows what it gains.
    """
    occupy_standard_streams()
    with asyncio.Runner(loop_factory=_fastest()) as runner:
        if task is None:
            return runner.run(main)
        loop = runner.get_loop()
        running: asyncio.Task[T] = task(main, loop=loop)
        return loop.run_until_complete(running)


def occupy_standard_streams() -> None:
    """Open the null device in the place of closed standard streams, which another file or socket would take else.

    uvloop aborts the process when it closes a descriptor of theirs.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD_STREAM:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - it takes no keyword
    os.close(descriptor)


def _fastest() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - an optional extra
    except ImportError:
        return None
    return uvloop.new_event_loop


def soon_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    """Call a function in an event loop from another thread; not at all once the loop is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
