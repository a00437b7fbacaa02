"""RQ: `SimpleWorker`, which runs jobs in its own process instead of forking for each, results off, hiredis.

Jobs are functions only, run one at a time, so both drains are that of a sync no-op. In the recovery measure the
job's timeout is 2 s and stale jobs are looked for every second; RQ adds 60 s to every heartbeat all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from redis import Redis
from rq import Queue, Retry, SimpleWorker

from benchmarks.contestants.protocol import Order, Payload, Sender, noop_sync


def work(order: Order) -> None:
    """Run a worker."""
    with closing(Redis.from_url(order.url)) as client:
        worker: Any = SimpleWorker(["bench"], connection=client, maintenance_interval=1)
        worker.log_job_description = False
        worker.work(logging_level="ERROR")


@contextmanager
def open_sender(order: Order) -> Iterator[Sender]:
    """Enqueue, many in a pipeline."""
    options: dict[str, Any] = {"result_ttl": 0}
    if order.kind == "hold":
        options |= {"timeout": 2, "retry": Retry(max=3)}

    with closing(Redis.from_url(order.url)) as client:
        queue: Any = Queue("bench", connection=client)

        def one(payload: Payload) -> None:
            queue.enqueue_call(noop_sync, (payload,), **options)

        def many(payloads: list[Payload]) -> None:
            queue.enqueue_many([queue.prepare_data(noop_sync, (payload,), **options) for payload in payloads])

        yield Sender(one, many)
