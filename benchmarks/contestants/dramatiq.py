"""Dramatiq: 8 threads (its default), no results, no Prometheus, hiredis; its worker prefetches twice its threads.

An async actor passes through one event-loop thread, which `AsyncIO` middleware runs. In the recovery measure a worker
counts as dead after 2 s, and maintenance runs with every fetch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO

from benchmarks.contestants.protocol import Order, Sender, noop, noop_sync


def _application(order: Order) -> tuple[Any, Any]:
    takeover = {"heartbeat_timeout": 2000, "maintenance_chance": 1_000_000} if order.kind == "hold" else {}
    broker: Any = RedisBroker(url=order.url, **takeover)
    broker.add_middleware(AsyncIO())
    dramatiq.set_broker(broker)
    actor: Any = dramatiq.actor(noop_sync if order.sync else noop, actor_name="noop", broker=broker)
    return broker, actor


def work(order: Order) -> None:
    """Run a worker in this process, as the command `dramatiq` runs one in each of its processes."""
    logging.disable(logging.INFO)
    broker, _ = _application(order)
    worker: Any = dramatiq.Worker(broker, worker_threads=order.slots or 8)
    broker.emit_after("process_boot")
    worker.start()
    threading.Event().wait()


@contextmanager
def open_sender(order: Order) -> Iterator[Sender]:
    """Send; there is no call for many."""
    _, actor = _application(order)
    yield Sender(actor.send)
