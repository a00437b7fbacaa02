"""The sentinel that the plugin starts for users' tests."""

from __future__ import annotations

import contextlib

from queue_system import QueueConfig, QueueManager
from queue_system.testing.sentinel import private_sentinel


def test_the_sentinel_of_the_plugin_switches_as_it_is_told(own_prefix: str) -> None:
    """What was enqueued before a planned switch and before a kill is there after it."""
    with (
        private_sentinel() as sentinel,
        contextlib.closing(QueueConfig(redis_url=sentinel.url, queue_prefix=own_prefix)) as config,
    ):
        queue = QueueManager(config)
        first = sentinel.primary_port
        queue.enqueue({}, "take")
        sentinel.fail_over()
        second = sentinel.primary_port
        assert queue.get_queue_status()["total_items"] == 1
        queue.enqueue({}, "take")
        sentinel.kill_primary()
        assert queue.get_queue_status()["total_items"] == 2
        assert (sentinel.primary_port, config.primary["primary"]) == (first, f"127.0.0.1:{first}")
        assert first != second
