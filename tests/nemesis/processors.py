"""Processors and callbacks that worker processes run by name. Never imported by anything that judges them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

from tests.nemesis.observed import CURRENT, pen


class PlannedError(Exception):
    """The operation was to fail at this attempt."""


async def work(entity: dict[str, Any]) -> str:
    """Take `seconds`, as waiting for a network does; raise at each of the first `fails` attempts."""
    with _run(entity):
        await asyncio.sleep(entity["seconds"])
    return str(entity["id"])


def work_in_thread(entity: dict[str, Any]) -> str:
    """Do the same in a thread."""
    with _run(entity):
        time.sleep(entity["seconds"])
    return str(entity["id"])


async def on_success(data: dict[str, Any]) -> None:
    await _callback(data, "on_success")


async def on_failure(data: dict[str, Any]) -> None:
    await _callback(data, "on_failure")


@contextlib.contextmanager
def _run(entity: dict[str, Any]) -> Iterator[None]:
    delivery = CURRENT.get()
    attempt = delivery.operation.attempts
    about = {"id": entity["id"], "token": delivery.token, "attempt": attempt}
    pen().note("invoke", "run", **about)
    try:
        yield
    except BaseException:
        pen().note("info", "run", **about)
        raise
    if attempt < entity["fails"]:
        pen().note("fail", "run", **about)
        raise PlannedError(f"attempt {attempt} was to fail")
    pen().note("ok", "run", **about)


async def _callback(data: dict[str, Any], phase: str) -> None:
    about = {"id": data["operation_id"], "token": CURRENT.get().token, "phase": phase}
    pen().note("invoke", "callback", **about)
    await asyncio.sleep(0.005)
    pen().note("ok", "callback", **about)
