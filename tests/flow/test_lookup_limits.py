"""Looking an operation up: no wait outlasts what the connection allows, and no time is told that is yet to come."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis

from queue_system import OperationRecord, QueueConfig, QueueManager, WaitTimeoutError
from queue_system.maintenance.reclaimer import Reclaimer
from tests.kit.configs import MakeConfig
from tests.kit.servers import OwnServer


def work(entity: object) -> None:
    """Stand for a processor."""


def limited_by_url(server: OwnServer) -> dict[str, Any]:
    return {"redis_url": f"{server.url}{'&' if '?' in server.url else '?'}socket_timeout=0.3"}


def limited_by_client(server: OwnServer) -> dict[str, Any]:
    return {"redis_client": server.client(socket_timeout=0.3)}


@pytest.mark.parametrize("limited", [limited_by_url, limited_by_client])
def test_a_wait_ends_before_a_connection_with_a_shorter_limit_of_its_own(
    server: OwnServer, make_config: MakeConfig, limited: Callable[[OwnServer], dict[str, Any]]
) -> None:
    config = make_config(connection_timeout=5.0, max_connection_retries=0, **limited(server))
    queue = QueueManager(config)
    operation_id = queue.enqueue({}, work)["operation_id"]
    with pytest.raises(WaitTimeoutError):
        queue.wait_for(operation_id, timeout=0.6)
    assert config.circuit_state == "closed"


def test_a_delayed_operation_has_no_time_of_its_last_change(queue: QueueManager, client: redis.Redis) -> None:
    """Its record has room for one time, and that is when it is due."""
    operation_id = queue.enqueue({}, work, delay=60)["operation_id"]
    record = queue.get_operation(operation_id)
    assert isinstance(record, OperationRecord)
    seconds, _ = client.time()
    assert record.status == "delayed"
    assert record.due_at is not None
    assert record.due_at > seconds
    assert record.updated_at is None


@pytest.mark.parametrize("result_ttl, longest_ms, error", [(7.0, 7_000, True), (0.0, 60_000, False)])
def test_the_record_of_poison_lives_as_long_as_its_operation_asked(
    config: QueueConfig, client: redis.Redis, result_ttl: float, longest_ms: int, error: bool
) -> None:
    """As with every other end; a worker that is alive takes over from one that is not."""
    commands, run = config.commands, config.transport.run
    item = {"operation_id": "poison", "entity": {}, "processor": "work", "crashes": 3, "result_ttl": result_ttl}
    run(commands.beat("register", "gone", 15_000))
    run(commands.claim("gone", "c1", 1, adopt=b"normal:jobs\n" + json.dumps(item).encode()))
    assert run(commands.declare_dead("gone", run(commands.incarnations())["gone"]))
    Reclaimer(config, config.shard, lambda: "own", lambda: 1_700_000_000_000).perform()
    record = QueueManager(config).get_operation("poison")
    assert record is not None
    assert (record.status, record.error is not None) == ("system_error", error)
    assert 0 < client.pttl(config.keys.operation("poison")) <= longest_ms
