"""Captured operations are what lies in the queue, whatever its settings; looking changes nothing."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, UndecodableItemError
from queue_system.clock import unix_seconds
from queue_system.testing import captured_operations
from tests.kit.servers import OwnServer
from tests.kit.waiting import wait_until


def work(entity: Any) -> None:
    """A processor that is never run here."""


def done(data: Any) -> None:
    """A callback that is never run here."""


def await_next_ms() -> None:
    """Wait until the clock that stamps operations shows another time."""
    now = unix_seconds()
    wait_until(lambda: unix_seconds() > now)


class Mirror:
    """An encryption that anybody can undo."""

    def encrypt(self, plain: bytes) -> bytes:
        return base64.b85encode(plain)

    def decrypt(self, encrypted: bytes) -> bytes:
        return base64.b85decode(encrypted)


def test_all_that_was_asked_for_is_told(config: QueueConfig, queue: QueueManager) -> None:
    """A record has every argument of the enqueue that it came from."""
    answer = queue.enqueue(
        {"id": 1},
        work,
        queue_name="orders",
        priority="low",
        retry_config=QueueRetryConfig.fixed(delay=1, max_attempts=2),
        on_success=done,
        on_failure="shop.mails.complain",
        timeout=7,
        deduplication_key="k",
        delay=90,
    )
    (operation,) = captured_operations(config)
    assert operation.operation_id == answer["operation_id"]
    assert operation.processor == f"{__name__}.work"
    assert (operation.entity, operation.queue, operation.priority) == ({"id": 1}, "orders", "low")
    assert (operation.timeout, operation.max_attempts, operation.deduplication_key) == (7, 2, "k")
    assert (operation.on_success, operation.on_failure) == (f"{__name__}.done", "shop.mails.complain")
    assert 90 <= operation.delay < 91


def test_they_come_in_the_order_of_enqueueing(config: QueueConfig, queue: QueueManager) -> None:
    """Neither queue nor priority nor a batch changes the order of different ms."""
    queue.enqueue({"n": 0}, work, priority="low")
    await_next_ms()
    queue.enqueue_batch([{"n": 1}, {"n": 2}, {"n": 3}], work, queue_name="b")
    await_next_ms()
    queue.enqueue({"n": 4}, work, delay=60)
    await_next_ms()
    queue.enqueue({"n": 5}, work, priority="high")
    for _ in range(2):
        assert [operation.entity["n"] for operation in captured_operations(config)] == list(range(6))
    assert queue.get_queue_status()["total_items"] == 5


def test_signed_and_encrypted_entities_are_read(server: OwnServer, prefix: str) -> None:
    """With the keys of the configuration, an entity is what was enqueued; what it did not sign is refused."""
    settings: dict[str, Any] = {"redis_url": server.url, "queue_prefix": prefix}
    encrypted = QueueConfig(**settings, signing_keys={"k": "sixteen bytes ok"}, encryption=Mirror())
    QueueManager(encrypted).enqueue({"secret": 1}, work)
    assert [operation.entity for operation in captured_operations(encrypted)] == [{"secret": 1}]
    QueueManager(QueueConfig(**settings)).enqueue({"forged": 1}, work)
    with pytest.raises(UndecodableItemError, match="not signed"):
        captured_operations(encrypted)
