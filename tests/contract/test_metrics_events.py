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


@pytest.mark.parametrize("name", ["errors", "system_errors", "failed", "timeouts", "payment_failures"])
def test_metrics_of_errors_are_logged_at_every_change(config: QueueConfig, log: LineLogger, name: str) -> None:
    for _ in range(30):
        config.update_metric(name)
    assert log.values(name) == list(range(1, 31))


def test_counters_are_logged_singly_to_5_then_at_powers_of_ten_then_by_percentage(
    config: QueueConfig, log: LineLogger
) -> None:
    for _ in range(1300):
        config.update_metric("processed")
    assert log.values("processed") == [1, 2, 3, 4, 5, 10, 100, 1000, 1100, 1210]


def test_averages_are_logged_when_they_change_by_more_than_a_tenth(config: QueueConfig, log: LineLogger) -> None:
    for sample in (100, 100, 115, 200):  # means: 100, 100, 105, 128.75
        config.update_metric("avg_size", sample)
    assert log.values("avg_size") == [100, 128.75]


def test_every_batch_is_logged_with_its_performance(config: QueueConfig, queue: QueueManager, log: LineLogger) -> None:
    for size in (3, 7, 2):
        queue.enqueue_batch([{"n": n} for n in range(size)], "app.handle")
    lines = [line.fields for line in log.lines if line.fields.get("metric_name") == "batch_enqueue"]
    assert [fields["metric_value"] for fields in lines] == [3, 7, 2]
    assert all(fields["duration_ms"] > 0 and fields["per_second"] > 0 for fields in lines)


def test_a_forced_update_is_always_logged(config: QueueConfig, log: LineLogger) -> None:
    config.update_metric("success_rate", 90.0)
    config.update_metric("success_rate", 90.1)
    config.update_metric("success_rate", 90.2, force_log=True)
    config.update_metric("processed", 60)
    config.update_metric("processed", 1, force_log=True)
    assert log.values("success_rate") == [90.0, 90.2]
    assert log.values("processed") == [60, 61]


def test_the_metrics_exist_from_the_start_and_the_success_rate_of_nothing_is_0(config: QueueConfig) -> None:
    assert config.get_metrics() == {
        "enqueued": 0, "processed": 0, "failed": 0, "retried": 0, "timeouts": 0, "system_errors": 0, "errors": 0,
        "avg_process_time": 0, "success_rate": 0,
    }  # fmt: skip


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


def test_a_stdlib_logger_gets_the_fields_as_extra(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "contract"):
        QueueConfig(logger=logging.getLogger("contract")).update_metric("processed", 2)
    (record,) = (record for record in caplog.records if record.name == "contract")
    assert vars(record)["metric_name"] == "processed"
    assert vars(record)["metric_value"] == 2
