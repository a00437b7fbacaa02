"""The decorator that repeats a failed call after growing waits."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar, cast

from queue_system.clock import SYSTEM_CLOCK, Clock
from queue_system.resilience.selection import selects
from queue_system.validation import check_exceptions, check_seconds, check_whole

__all__ = ["RetryPolicy", "RetryRun", "backoff_delay", "retry_with_backoff"]

P = ParamSpec("P")
R = TypeVar("R")

_LARGEST_EXPONENT: Final = 1000  # 2.0 ** 1024 overflows


def backoff_delay(attempt: int, base_delay: float, max_delay: float) -> float:
    """Seconds to wait before retry `attempt`, from 0: min(max_delay, base_delay * 2**attempt), give or take 25 %."""
    delay = min(max_delay, base_delay * 2.0 ** min(attempt, _LARGEST_EXPONENT))
    return delay * random.uniform(0.75, 1.25)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed call is repeated. Times are seconds; a wrong value raises InvalidInputError."""

    max_retries: int
    base_delay: float
    max_delay: float
    exceptions: tuple[type[Exception], ...]
    total_timeout: float

    def __post_init__(self) -> None:
        check_whole("max_retries", self.max_retries, 0)
        check_seconds("base_delay", self.base_delay, most=math.inf)
        check_seconds("max_delay", self.max_delay, most=math.inf)
        check_exceptions("exceptions", self.exceptions)
        check_seconds("total_timeout", self.total_timeout, most=math.inf, above=True)


class RetryRun:
    """The retries of one call, counted from its first attempt."""

    __slots__ = ("_clock", "_policy", "_retries", "_started")

    def __init__(self, policy: RetryPolicy, clock: Clock = SYSTEM_CLOCK) -> None:
        self._policy = policy
        self._clock = clock
        self._retries = 0
        self._started = clock.monotonic()

    def next_wait(self, error: Exception) -> float | None:
        """Seconds to wait before the next attempt, or None where `error` is the call's last."""
        policy = self._policy
        if self._retries >= policy.max_retries or not selects(policy.exceptions, error):
            return None
        wait = backoff_delay(self._retries, policy.base_delay, policy.max_delay)
        if self._clock.monotonic() - self._started + wait > policy.total_timeout:
            return None
        self._retries += 1
        return wait


def retry_with_backoff(
    max_retries: int = 3,
    base_delay: float = 0.1,
    max_delay: float = 10.0,
    exceptions: tuple[type[Exception], ...] | None = None,
    total_timeout: float = 30.0,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Repeat a call of the decorated function, sync or async, up to `max_retries` times when it raises `exceptions`.

    Before retry k (from 0) it waits min(max_delay, base_delay * 2**k) seconds, give or take 25 %. The last error is
    raised itself, also when the next wait would end later than `total_timeout` seconds after the first attempt began;
    a running attempt is not cut short. `exceptions=None` means Exception. A cancellation is never retried, and a
    CircuitOpenError only where `exceptions` lists that class.

    Raises InvalidInputError at decoration for a wrong parameter.
    """
    selected = (Exception,) if exceptions is None else exceptions
    policy = RetryPolicy(max_retries, base_delay, max_delay, selected, total_timeout)

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(fn):
            return cast("Callable[P, R]", _retry_async(fn, policy))
        return _retry_sync(fn, policy)

    return decorate


def _retry_sync(fn: Callable[P, R], policy: RetryPolicy) -> Callable[P, R]:
    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        run = RetryRun(policy)
        while True:
            try:
                return fn(*args, **kwargs)
            except Exception as error:
                wait = run.next_wait(error)
                if wait is None:
                    raise
            time.sleep(wait)

    return wrapper


def _retry_async(fn: Callable[P, Awaitable[Any]], policy: RetryPolicy) -> Callable[P, Awaitable[Any]]:
    @functools.wraps(fn)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        run = RetryRun(policy)
        while True:
            try:
                return await fn(*args, **kwargs)
            except Exception as error:
                wait = run.next_wait(error)
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    return wrapper
