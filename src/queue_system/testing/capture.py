"""What the code under test has enqueued, read from the real queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from queue_system.broker.protocol import plain
from queue_system.config import QueueConfig
from queue_system.manager import QueueManager
from queue_system.model.formats import split_member
from queue_system.model.keys import split_queue
from queue_system.model.operation import decode_item
from queue_system.validation import check_instance


@dataclass(frozen=True, slots=True)
class CapturedOperation:
    """One operation that waits. Times are s; a callable is named `"module.function"`."""

    operation_id: str
    processor: str
    entity: Any
    queue: str
    priority: str
    delay: float
    """0.0 for one that is ready. Else the s from its enqueue until it is due, a little more than what was asked for:
    the delay counts from the moment at which the server has it."""
    timeout: float | None
    max_attempts: int
    on_success: str | None
    on_failure: str | None
    deduplication_key: str


def captured_operations(config: QueueConfig) -> list[CapturedOperation]:
    """Return all operations that wait under the configuration's prefix, delayed ones too, in the order of enqueueing.

    Those of one ms are ordered by queue, delayed ones last. What a worker has claimed or finished is not among them.
    With the prefix of one test (`queue_config`), they are what that test enqueued.

    Raises:
        UndecodableItemError: something else wrote what is no item, or what the configuration's keys did not sign.
        ServerError: typed.
    """
    check_instance("config", config, QueueConfig)
    shard = config.shard
    found: list[tuple[float, CapturedOperation]] = []
    for key in QueueManager(config).get_queue_status():
        queue = key.removeprefix(shard.keys.prefix).encode()
        if split_queue(queue) is None:
            continue
        items = shard.run(plain(list[bytes], "LRANGE", key, 0, -1))
        found += [_read(config, queue, item) for item in reversed(items)]
    delayed = shard.run(plain(list[bytes], "ZRANGE", shard.keys.delayed, 0, -1, "WITHSCORES"))
    for member, due_ms in zip(delayed[::2], delayed[1::2], strict=True):
        queue, item = split_member(member)
        found.append(_read(config, queue, item, float(due_ms) / 1000))
    return [operation for _, operation in sorted(found, key=lambda entry: entry[0])]


def _read(config: QueueConfig, queue: bytes, item: bytes, due: float | None = None) -> tuple[float, CapturedOperation]:
    """Return when an item was enqueued, in Unix seconds, and what it says."""
    if config.signer is not None:
        item = config.signer.verify(queue, item)
    operation = decode_item(item)
    if config.cipher is not None:
        operation = config.cipher.decrypt_operation(operation)
    priority, name = split_queue(queue) or ("", queue.decode(errors="replace"))
    return operation.timestamp, CapturedOperation(
        operation.operation_id,
        _name(operation.processor, operation.processor_module) or "",
        operation.entity,
        name,
        priority,
        0.0 if due is None else due - operation.timestamp,
        operation.timeout,
        operation.max_attempts,
        _name(operation.on_success, operation.on_success_module),
        _name(operation.on_failure, operation.on_failure_module),
        operation.deduplication_key,
    )


def _name(name: str | None, module: str | None) -> str | None:
    return f"{module}.{name}" if name and module else name
