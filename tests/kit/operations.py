"""The usual operations of tests: processors that do the least, and how often they are tried. Never touch Redis."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from queue_system import QueueRetryConfig

ONCE = QueueRetryConfig(max_attempts=1)
TWICE = QueueRetryConfig.fixed(0.0, max_attempts=2)


def process(entity: Any) -> Any:
    return entity


def work(entity: Any) -> None:
    """Do nothing."""


def fail(entity: Any) -> None:
    raise ValueError("boom")


def either(function: Callable[[Any], Any], *, is_async: bool) -> Callable[[Any], Any]:
    """The function as it is, or a coroutine function of its name that does the same."""

    @functools.wraps(function)
    async def in_loop(value: Any) -> Any:
        return function(value)

    return in_loop if is_async else function


def raising(error: BaseException | type[BaseException], *, is_async: bool = True) -> Callable[..., Any]:
    """A processor, callback or hook that raises, in the event loop or in a thread; its name tells which."""

    def raise_in_thread(*_: Any) -> None:
        raise error

    async def raise_in_loop(*_: Any) -> None:
        raise error

    found = raise_in_loop if is_async else raise_in_thread
    kind = error if isinstance(error, type) else type(error)
    found.__name__ = f"raise_{kind.__name__}_in_{'loop' if is_async else 'thread'}"
    return found
