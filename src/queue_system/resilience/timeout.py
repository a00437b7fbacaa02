"""The decorator that limits how long a call may take."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from queue_system.resilience.naming import qualified_name
from queue_system.resilience.threads import call_in_thread
from queue_system.validation import check_seconds

__all__ = ["with_timeout"]

P = ParamSpec("P")
R = TypeVar("R")


def with_timeout(default_timeout: float = 60.0) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let each call of the decorated function take at most `default_timeout` seconds; then raise TimeoutError.

    An async function is cancelled at the limit. A sync one runs in a thread of its own with a copy of the caller's
    context; at the limit that thread is abandoned and goes on in the background. A TimeoutError of the function
    itself and a cancellation from outside pass through unchanged.

    Raises InvalidInputError at decoration for a limit that is not a finite number above 0.
    """
    check_seconds("default_timeout", default_timeout, most=math.inf, above=True)

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(fn):
            return cast("Callable[P, R]", _limit_async(fn, default_timeout))

        @functools.wraps(fn)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            return call_in_thread(fn, args, kwargs, default_timeout)

        return wrapper

    return decorate


def _limit_async(fn: Callable[P, Awaitable[Any]], limit: float) -> Callable[P, Awaitable[Any]]:
    @functools.wraps(fn)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        raised_by_function = False
        try:
            async with asyncio.timeout(limit):
                try:
                    return await fn(*args, **kwargs)
                except TimeoutError:
                    raised_by_function = True
                    raise
        except TimeoutError as error:
            if raised_by_function:
                raise
            message = f"{qualified_name(fn)} did not finish within {limit:g} s"
            raise TimeoutError(message) from error

    return wrapper
