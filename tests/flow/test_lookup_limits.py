"""Looking an operation up: no wait outlasts what the connection allows, and no record the time that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, WaitTimeoutError
from tests.kit.configs import MakeConfig
from tests.kit.contents import record_of
from tests.kit.foreign import die, hold, reclaimer
from tests.kit.operations import work
from tests.kit.servers import OwnServer


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


@pytest.mark.parametrize("result_ttl, longest_ms, error", [(7.0, 7_000, True), (0.0, 60_000, False)])
def test_the_record_of_poison_lives_as_long_as_its_operation_asked(
    config: QueueConfig, client: redis.Redis, result_ttl: float, longest_ms: int, error: bool
) -> None:
    """As with every other end; a worker that is alive takes over from one that is not."""
    item = {"operation_id": "poison", "entity": {}, "processor": "work", "crashes": 3, "result_ttl": result_ttl}
    hold(config, "gone", b"normal:jobs\n" + json.dumps(item).encode())
    die(config, "gone")
    reclaimer(config).perform()
    record = record_of(QueueManager(config), "poison")
    assert (record.status, record.error is not None) == ("system_error", error)
    assert 0 < client.pttl(config.keys.operation("poison")) <= longest_ms
