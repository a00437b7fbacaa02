"""Waiting for what offers no event to wait for, with a deadline. Never waits longer than that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

DEADLINE_S = 15.0
_LOOK_EVERY_S = 0.01


async def eventually(holds: Callable[[], object], what: str = "the condition", within_s: float = DEADLINE_S) -> None:
    """Return as soon as `holds()` is true; raise AssertionError with `what` if it is not within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {within_s:g} s")
        await asyncio.sleep(_LOOK_EVERY_S)


def wait_until(holds: Callable[[], object], what: str = "the condition", within_s: float = DEADLINE_S) -> None:
    """Do what `eventually` does, for a test without an event loop."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {within_s:g} s")
        time.sleep(_LOOK_EVERY_S)
