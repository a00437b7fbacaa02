"""Waiting for what offers no event to wait for, with a deadline. Never waits longer than that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

DEADLINE_S = 45.0
"""As an outer limit: on a busy machine a process may need so long to start."""
_LOOK_EVERY_S = 0.01


async def eventually(holds: Callable[[], object], what: str = "the condition", within_s: float = DEADLINE_S) -> float:
    """Do what `wait_until` does, and let the event loop run meanwhile."""
    started = time.monotonic()
    while not holds():
        _check(started, what, within_s)
        await asyncio.sleep(_LOOK_EVERY_S)
    return time.monotonic() - started


def wait_until(holds: Callable[[], object], what: str = "the condition", within_s: float = DEADLINE_S) -> float:
    """Look every 10 ms until `holds()` is true; return how many s that took, or raise AssertionError with `what`."""
    started = time.monotonic()
    while not holds():
        _check(started, what, within_s)
        time.sleep(_LOOK_EVERY_S)
    return time.monotonic() - started


def holds_within(holds: Callable[[], object], within_s: float) -> bool:
    """Do what `wait_until` does, but only tell whether it came to hold in time."""
    try:
        wait_until(holds, within_s=within_s)
    except TooLateError:
        return False
    return True


class TooLateError(AssertionError):
    """A condition did not come to hold in time."""


def _check(started: float, what: str, within_s: float) -> None:
    if time.monotonic() - started > within_s:
        raise TooLateError(f"not within {within_s:g} s: {what}")
