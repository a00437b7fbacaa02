"""Every table row of the specification: the name exists, of its kind, with its arguments and defaults."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import pytest

import utils
from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker


class Kind(Enum):
    """How a callable is called."""

    SYNC = auto()
    ASYNC = auto()
    CLASSMETHOD = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. `arguments` are written as in a `def`, without types."""

    owner: Any
    name: str
    arguments: str = ""
    kind: Kind = Kind.SYNC

    def __str__(self) -> str:
        return f"{self.owner.__name__}.{self.name}"


def required(text: str) -> list[tuple[str, Any]]:
    """Names and defaults of the arguments that a row writes."""
    namespace: dict[str, Any] = {}
    exec(f"def row({text}): ...", namespace)  # noqa: S102 - the rows below
    return [(p.name, p.default) for p in inspect.signature(namespace["row"]).parameters.values()]


ENQUEUE: Final = (
    "entity, processor, queue_name=None, priority='normal', operation_id=None, retry_config=None, on_success=None,"
    " on_failure=None, timeout=None, deduplication_key=None, custom_serializer=None"
)
EXPONENTIAL: Final = "base=2.0, min_delay=1.0, max_delay=60.0, max_attempts=5, timeout=None"
ROWS: Final = [
    Row(QueueConfig, "get_queue_key", "queue_name, priority='normal'"),
    Row(QueueConfig, "get_registry_key"),
    Row(QueueConfig, "get_callback_key", "callback_name, callback_module=None"),
    Row(QueueConfig, "register_callback", "callback, name=None, module=None"),
    Row(QueueConfig, "update_metric", "metric_name, value=1, force_log=False"),
    Row(QueueConfig, "get_metrics"),
    Row(
        QueueConfig,
        "__init__",
        "redis_client=None, redis_url=None, queue_prefix='queue:', backup_ttl=86400 * 7, logger=None,"
        " connection_timeout=5.0, max_connection_retries=3",
    ),
    Row(QueueConfig, "_define_queue_keys"),
    Row(QueueConfig, "_ensure_redis_sync", "retry_count=None"),
    Row(QueueManager, "enqueue", ENQUEUE),
    Row(QueueManager, "enqueue_batch", "entities, processor, **kwargs"),
    Row(QueueManager, "get_queue_status"),
    Row(QueueManager, "purge_queue", "queue_name, priority='normal'"),
    Row(QueueManager, "__init__", "config"),
    Row(QueueManager, "_generate_operation_id"),
    Row(QueueManager, "_hash_entity", "entity"),
    Row(QueueManager, "_serialize_entity", "entity, default_serializer=None"),
    Row(QueueManager, "_queue_operation", "queue_data, queue_name, priority='normal', custom_serializer=None"),
    Row(QueueWorker, "start", kind=Kind.ASYNC),
    Row(QueueWorker, "stop", kind=Kind.ASYNC),
    Row(QueueWorker, "__init__", "config, max_workers=5, work_timeout=30.0"),
    Row(QueueWorker, "_worker_loop", "worker_id", Kind.ASYNC),
    Row(QueueWorker, "_process_queue_item", "worker_id", Kind.ASYNC),
    Row(QueueWorker, "_handle_queue_item", "worker_id, queue, item_data", Kind.ASYNC),
    Row(QueueWorker, "_execute_callback", "callback_name, callback_module, data", Kind.ASYNC),
    Row(QueueRetryConfig, "get_delay_for_attempt", "attempt"),
    Row(QueueRetryConfig, "to_dict"),
    Row(QueueRetryConfig, "would_exceed_timeout", "first_attempt_time, current_time"),
    Row(QueueRetryConfig, "from_dict", "data", Kind.CLASSMETHOD),
    Row(QueueRetryConfig, "fixed", "delay, max_attempts=5, timeout=None", Kind.CLASSMETHOD),
    Row(QueueRetryConfig, "exponential", EXPONENTIAL, Kind.CLASSMETHOD),
    Row(QueueRetryConfig, "custom", "delays, max_attempts=None, timeout=None", Kind.CLASSMETHOD),
    Row(QueueRetryConfig, "__init__", "max_attempts=5, delays=None, timeout=None"),
    Row(QueueRetryConfig, "_generate_exponential_delays"),
    Row(utils, "with_timeout", "default_timeout=60.0"),
    Row(
        utils,
        "circuit_breaker",
        "name=None, failure_threshold=5, recovery_timeout=30.0, half_open_max_calls=3, window_size=60.0",
    ),
    Row(
        utils,
        "retry_with_backoff",
        "max_retries=3, base_delay=0.1, max_delay=10.0, exceptions=None, total_timeout=30.0",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_keeps_its_signature_and_adds_optional_keywords_only(row: Row) -> None:
    function = getattr(row.owner, row.name)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    promised = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    added = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]

    assert [(p.name, p.default) for p in promised] == required(row.arguments)
    assert all(p.default is not inspect.Parameter.empty for p in added)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_is_of_its_kind(row: Row) -> None:
    stored = inspect.getattr_static(row.owner, row.name)
    assert isinstance(stored, classmethod) is (row.kind is Kind.CLASSMETHOD)
    assert inspect.iscoroutinefunction(getattr(row.owner, row.name)) is (row.kind is Kind.ASYNC)


def test_running_is_a_property_of_the_worker() -> None:
    assert isinstance(QueueWorker.running, property)
