"""What is decided where the specification is silent: how operations come in."""

from __future__ import annotations

from typing import Any

import pytest

from queue_system import QueueConfig, QueueManager
from tests.kit.servers import StartServer


async def handle(entity: Any) -> None: ...


@pytest.mark.parametrize("callbacks", [{}, {"on_success": handle}, {"on_failure": "app.alarm"}])
@pytest.mark.parametrize("batch", [False, True])
def test_the_answer_has_four_members(queue: QueueManager, callbacks: dict[str, Any], batch: bool) -> None:
    answer = queue.enqueue_batch([{}], handle, **callbacks)[0] if batch else queue.enqueue({}, handle, **callbacks)
    assert set(answer) == {"operation_id", "status", "has_callbacks", "enqueue_time_ms"}
    assert answer["status"] == "queued"
    assert answer["has_callbacks"] is bool(callbacks)
    assert answer["enqueue_time_ms"] > 0


def test_a_batch_takes_one_script_call_per_thousand(start_server: StartServer) -> None:
    server = start_server()
    queue = QueueManager(config=QueueConfig(redis_url=server.url))
    with server.client() as bare:
        assert len(queue.enqueue_batch([{}] * 2500, handle)) == 2500
        stats: Any = bare.info("commandstats")
        assert bare.llen("queue:normal:handle") == 2500
    scripts = [stats.get(f"cmdstat_{name}", {"calls": 0, "failed_calls": 0}) for name in ("eval", "evalsha")]
    assert sum(stat["calls"] - stat["failed_calls"] for stat in scripts) == 3
