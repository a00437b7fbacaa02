"""Processors, callbacks and hooks that cancel themselves or come to no end. Tests let what they block go on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

LONG_S = 60.0

released = threading.Event()
"""Set at the end of each test: what ignores cancellations or blocks a thread ends then."""
blocked: list[None] = []
"""As many as `block` has blocked threads in this test."""


def named(case: Any) -> str:
    """The id of a case that is a function."""
    return getattr(case, "__name__", str(case))


def own_task() -> asyncio.Task[Any]:
    """The task that runs the caller."""
    task = asyncio.current_task()
    assert task is not None
    return task


async def cancel_itself(*_: Any) -> None:
    own_task().cancel()
    await asyncio.sleep(LONG_S)


async def cancel_itself_and_return(*_: Any) -> str:
    own_task().cancel()
    return "done"


async def hang(*_: Any) -> None:
    await asyncio.Event().wait()


async def ignore_cancellations(*_: Any) -> None:
    while not released.is_set():
        with contextlib.suppress(BaseException):
            await asyncio.sleep(0.01)


def block(*_: Any) -> None:
    blocked.append(None)
    released.wait(LONG_S)
