"""Which changes of a metric the specification promises a log line for, and what the figures mean."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog

from queue_system import InvalidInputError, QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.contract.support import counted
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import eventually
from tests.kit.workers import running


def test_a_forced_update_is_always_logged(config: QueueConfig, log: LineLogger) -> None:
    config.update_metric("success_rate", 90.0)
    config.update_metric("success_rate", 90.1)
    config.update_metric("success_rate", 90.2, force_log=True)
    config.update_metric("processed", 60)
    config.update_metric("processed", 1, force_log=True)
    assert log.values("success_rate") == [90.0, 90.2]
    assert log.values("processed") == [60, 61]


async def test_the_metrics_count_what_became_of_operations(config: QueueConfig, queue: QueueManager) -> None:
    async def succeeds(entity: Any) -> None: ...

    async def breaks(entity: Any) -> None:
        raise RuntimeError("no luck")

    async def hangs(entity: Any) -> None:
        await Inbox().next()

    twice, once = QueueRetryConfig.fixed(delay=0, max_attempts=2), QueueRetryConfig(max_attempts=1)
    queue.enqueue_batch([{}, {}, {}], succeeds)
    queue.enqueue({}, breaks, retry_config=twice)
    queue.enqueue({}, hangs, retry_config=once, timeout=0.05)
    queue.enqueue({}, "nowhere.to.be_found")
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics()["failed"] == 2, "both failures are settled")
        await eventually(lambda: config.get_metrics()["processed"] == 3, "all others are settled")
    metrics = config.get_metrics()
    assert metrics.pop("avg_process_time") > 0
    assert metrics == {
        "enqueued": 6, "processed": 3, "failed": 2, "retried": 1, "timeouts": 1, "system_errors": 1, "errors": 4,
        "success_rate": 60.0,
    }  # fmt: skip


async def test_get_metrics_is_of_this_process_and_status_of_the_fleet(
    server: OwnServer, config: QueueConfig, queue: QueueManager
) -> None:
    async def succeeds(entity: Any) -> None: ...

    queue.enqueue({}, succeeds)
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics()["processed"] == 1)
    other = QueueConfig(redis_url=server.url, queue_prefix=config.queue_prefix)
    assert other.get_metrics()["processed"] == 0
    assert (counted(other, "enqueued"), counted(other, "processed")) == (1, 1)


async def test_errors_of_an_outage_are_logged_now_and_then_with_their_total(
    start_server: StartServer, log: LineLogger
) -> None:
    server = start_server()
    config = QueueConfig(redis_url=server.url, logger=log, connection_timeout=0.5)
    async with running(QueueWorker(config)):
        server.kill()
        await eventually(lambda: len(log.values("errors")) >= 2, "a second line")
        first, second, *_ = log.values("errors")
        assert 1 <= first < second
        server.start()


@pytest.mark.parametrize("given", [None, logging.getLogger("contract"), structlog.get_logger(), LineLogger()])
def test_the_logger_is_the_one_given_and_never_none(given: Any) -> None:
    config = QueueConfig(logger=given)
    assert config.logger is (logging.getLogger("queue_system") if given is None else given)
    config.logger.info("works")


def test_what_cannot_log_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="logger"):
        QueueConfig(logger=print)
