"""Celery on Redis: a pool of one thread, prefetch 1,000, results ignored, no events, gossip, mingle or heartbeat.

Its tasks are functions only, so both drains are that of a sync no-op; more threads only contend for the GIL. In the
recovery measure tasks are acked late, the visibility timeout is 2 s, and unacked ones are looked for every second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from benchmarks.contestants.protocol import Order, Sender, noop_sync


def _application(order: Order) -> tuple[Any, Any]:
    application: Any = Celery("bench", broker=order.url)
    application.conf.update(
        task_ignore_result=True,
        worker_prefetch_multiplier=1000,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_disable_rate_limits=True,
        broker_connection_retry_on_startup=True,
    )
    if order.kind == "hold":
        application.conf.update(
            task_acks_late=True,
            worker_prefetch_multiplier=1,
            broker_transport_options={
                "visibility_timeout": 2,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
            },
        )
    return application, application.task(name="noop")(noop_sync)


def work(order: Order) -> None:
    """Run a worker, by its command line."""
    application, _ = _application(order)
    pool = ("--pool", "threads", "--concurrency", "1")
    quiet = ("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat")
    application.worker_main(["worker", *pool, *quiet])


@contextmanager
def open_sender(order: Order) -> Iterator[Sender]:
    """Send by `delay`; there is no call for many."""
    _, task = _application(order)
    yield Sender(task.delay)
