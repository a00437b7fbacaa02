"""Processors and callbacks that worker processes run by name. Never imported by anything that judges them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

from tests.faults.support.journal import begin, note

_pair = threading.Barrier(2, timeout=5.0)


async def work(entity: dict[str, Any]) -> str:
    """Take `seconds`, as waiting for a network does."""
    run = begin(entity["id"])
    await asyncio.sleep(entity["seconds"])
    note("end", entity["id"], run)
    return str(entity["id"])


def work_in_thread(entity: dict[str, Any]) -> None:
    """Take `seconds` in a thread."""
    run = begin(entity["id"])
    time.sleep(entity["seconds"])
    note("end", entity["id"], run)


async def block_the_loop(entity: dict[str, Any]) -> None:
    """Take `seconds` without ever giving the event loop a turn."""
    run = begin(entity["id"])
    time.sleep(entity["seconds"])  # noqa: ASYNC251 - the very fault that is tested
    note("end", entity["id"], run)


async def poison(entity: dict[str, Any]) -> None:
    """Kill the process that runs it."""
    begin(entity["id"])
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(60.0)


def meet(entity: dict[str, Any]) -> None:
    """Succeed only if two of its kind run at the same time in one process."""
    run = begin(entity["id"])
    _pair.wait()
    note("end", entity["id"], run)


async def on_success(data: dict[str, Any]) -> None:
    """Note that the operation succeeded."""
    note("success", data["operation_id"])


async def on_failure(data: dict[str, Any]) -> None:
    """Note that the operation failed."""
    note("failure", data["operation_id"])


def hang_on_success(data: dict[str, Any]) -> None:
    """Hang in a thread, as a callback with a dead peer does."""
    note("callback", data["operation_id"])
    time.sleep(12.0)
