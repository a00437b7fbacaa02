"""Huey with its Redis storage: blocking reads, threads, results off, no periodic tasks, hiredis.

Threads beyond the first only add contention for a no-op under the GIL: one worker thread. It runs functions only, so
both drains are that of a sync no-op. It pops a task before it runs it: a task is lost with its worker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huey import RedisHuey

from benchmarks.contestants.protocol import Order, Sender, noop_sync


def _application(order: Order) -> Any:
    return RedisHuey("bench", url=order.url, results=False, blocking=True)


def work(order: Order) -> None:
    """Run a consumer, as the command `huey_consumer` runs it."""
    logging.disable(logging.INFO)
    application = _application(order)
    application.task(name="noop")(noop_sync)
    application.create_consumer(workers=1, periodic=False, worker_type="thread").start()
    threading.Event().wait()


@contextmanager
def open_sender(order: Order) -> Iterator[Sender]:
    """Enqueue by calling the task; there is no call for many."""
    application = _application(order)
    yield Sender(application.task(name="noop")(noop_sync))
