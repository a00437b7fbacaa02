"""What a type checker must see of the public API. Checked by mypy, never run."""

from __future__ import annotations

from typing import Any, assert_type

from queue_system import (
    CallNext,
    Middleware,
    QueueConfig,
    QueueManager,
    QueueRetryConfig,
    QueueWorker,
    RunningOperation,
    WorkerRecord,
)
from queue_system.dead_letters import DeadLetter
from utils import circuit_breaker, retry_with_backoff, with_timeout

config = QueueConfig(
    redis_url="redis://localhost:6379/0", queue_prefix="queue:", backup_ttl=3600, connection_timeout=5.0
)
manager = QueueManager(config=config)
worker = QueueWorker(config=config, max_workers=2, work_timeout=30.0)


async def process(data: dict[str, Any]) -> dict[str, Any]:
    return data


def notify(data: dict[str, Any]) -> None: ...


def configuration() -> None:
    assert_type(config.get_queue_key("mail", "high"), str)
    assert_type(config.get_registry_key(), str)
    assert_type(config.get_callback_key("notify", callback_module="app"), str)
    assert_type(config.get_metrics(), dict[str, Any])
    config.register_callback(notify, name="notify", module="app")
    config.update_metric("success_rate", 99.5, force_log=True)
    config.get_queue_key(1)  # type: ignore[arg-type]


class Report(Middleware):
    """Has async and sync hooks, whose parameters have names of their own."""

    async def around(self, operation: RunningOperation, call_next: CallNext) -> Any:
        assert_type(operation.attempt, int)
        assert_type(operation.with_entity({}), RunningOperation)
        return await call_next(operation)

    def on_start(self, begun: RunningOperation) -> None: ...

    async def on_failure(self, operation: RunningOperation, error: BaseException) -> None: ...


async def surround(operation: RunningOperation, call_next: CallNext) -> Any:
    return await call_next(operation)


def wrapping() -> None:
    QueueConfig(middleware=[Report(), surround])
    QueueConfig(middleware=Report())  # type: ignore[arg-type]
    QueueConfig(middleware=[notify])  # type: ignore[list-item]


def retries() -> None:
    assert_type(QueueRetryConfig(max_attempts=5, delays=[1.0, 2.0], timeout=60.0), QueueRetryConfig)
    assert_type(QueueRetryConfig.fixed(delay=30, max_attempts=3, timeout=300), QueueRetryConfig)
    assert_type(QueueRetryConfig.exponential(base=2.0, min_delay=1.0, max_delay=60.0), QueueRetryConfig)
    retry = QueueRetryConfig.custom(delays=[60, 300, 1800], timeout=86400)
    assert_type(retry, QueueRetryConfig)
    assert_type(retry.get_delay_for_attempt(0), float)
    assert_type(retry.would_exceed_timeout(0.0, 1.0), bool)
    assert_type(retry.to_dict(), dict[str, Any])
    assert_type(QueueRetryConfig.from_dict(retry.to_dict()), QueueRetryConfig)
    QueueRetryConfig.fixed(delay="30")  # type: ignore[arg-type]


def queueing() -> None:
    answer = manager.enqueue(
        entity={"user_id": "123"},
        processor=process,
        queue_name="mail",
        priority="high",
        operation_id="42",
        retry_config=QueueRetryConfig(),
        on_success=notify,
        on_failure="notify",
        timeout=5.0,
        deduplication_key="mail-42",
        custom_serializer=str,
    )
    assert_type(answer, dict[str, Any])
    assert_type(manager.enqueue({"id": 1}, "process"), dict[str, Any])
    assert_type(manager.enqueue_batch([{"id": 1}], process, priority="low"), list[dict[str, Any]])
    assert_type(manager.get_queue_status(), dict[str, Any])
    assert_type(manager.list_workers(), list[WorkerRecord])
    assert_type(manager.purge_queue("mail", priority="low"), int)
    assert_type(manager.list_dead_letters("system_errors", queue="mail").letters, list[DeadLetter])
    assert_type(manager.retry_dead_letters(letter_ids=["x"]), int)
    assert_type(manager.drop_dead_letters(min_age=3600), int)
    manager.enqueue(entity={"id": 1})  # type: ignore[call-arg]
    manager.enqueue({"id": 1}, process, retries=3)  # type: ignore[call-arg]
    manager.enqueue({"id": 1}, process, delay="1s")  # type: ignore[arg-type]
    manager.enqueue({"id": 1}, process, retry_config=3)  # type: ignore[arg-type]


async def working() -> None:
    await worker.start()
    assert_type(worker.running, bool)
    await worker.stop()


@with_timeout(default_timeout=30.0)
async def bounded(count: int) -> str:
    return str(count)


@circuit_breaker(name="typing", failure_threshold=5, recovery_timeout=30.0, half_open_max_calls=3, window_size=60.0)
def guarded(count: int) -> str:
    return str(count)


@retry_with_backoff(max_retries=3, base_delay=0.5, max_delay=1.0, exceptions=(ConnectionError,), total_timeout=3.0)
async def retried(count: int) -> str:
    return str(count)


async def decorated() -> None:
    assert_type(await bounded(1), str)
    assert_type(guarded(1), str)
    assert_type(await retried(1), str)
    guarded("1")  # type: ignore[arg-type]
    await bounded("1")  # type: ignore[arg-type]
    await retried("1")  # type: ignore[arg-type]
