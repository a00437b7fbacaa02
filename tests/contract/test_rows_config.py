"""What each row of the table of QueueConfig promises."""

from __future__ import annotations

import contextlib
import threading

import pytest
import redis

from queue_system import (
    CircuitOpenError,
    QueueConfig,
    QueueManager,
    ServerUnreachableError,
)
from tests.kit.servers import StartServer


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
def test_get_queue_key_names_the_list_of_a_queue(config: QueueConfig, priority: str) -> None:
    assert config.get_queue_key("mail", priority) == f"{config.queue_prefix}{priority}:mail"
    assert config.get_queue_key("mail") == f"{config.queue_prefix}normal:mail"


def test_get_registry_key_names_the_set_of_the_lists(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis
) -> None:
    queue.enqueue({}, "app.handle", queue_name="mail", priority="low")
    assert raw.smembers(config.get_registry_key()) == {config.get_queue_key("mail", "low")}


def test_get_callback_key_names_a_callable(config: QueueConfig) -> None:
    assert config.get_callback_key("notify", "app.mail") == "app.mail.notify"
    assert config.get_callback_key("notify") == "notify"


def test_define_queue_keys_names_the_lists_under_the_prefix(config: QueueConfig) -> None:
    config.queue_prefix = "other:"
    config._define_queue_keys()
    assert config.get_queue_key("mail") == "other:normal:mail"
    assert config.get_registry_key() == "other:registry"
    assert (config.failures_queue, config.system_errors_queue) == ("other:failures", "other:system_errors")


def test_ensure_redis_sync_returns_a_client_that_answers_and_keeps_it(config: QueueConfig) -> None:
    client = config._ensure_redis_sync()
    assert isinstance(client, redis.Redis)
    assert client.ping()
    assert config.redis_client is client
    assert config._ensure_redis_sync(retry_count=0) is client


def test_a_client_that_is_closed_and_set_to_none_is_replaced_by_the_next_call(config: QueueConfig) -> None:
    client = config._ensure_redis_sync()
    client.close()
    config.redis_client = None
    another = config._ensure_redis_sync()
    assert another is not client
    assert another.ping()


def test_ensure_redis_sync_retries_until_the_server_is_there(start_server: StartServer) -> None:
    server = start_server()
    config = QueueConfig(redis_url=server.url)
    server.stop()
    with pytest.raises(ServerUnreachableError):
        config._ensure_redis_sync(retry_count=0)
    starting = threading.Thread(target=server.start)
    starting.start()
    try:
        assert config._ensure_redis_sync(retry_count=10).ping()
    finally:
        starting.join()


@pytest.mark.parametrize("call", ["_ensure_redis_sync", "get_queue_status"])
def test_the_breaker_opens_at_the_fifth_call_that_finds_no_server(call: str, start_server: StartServer) -> None:
    """Each call counts once, however often it was retried; both calls share the breaker."""
    server = start_server()
    server.stop()
    config = QueueConfig(redis_url=server.url, max_connection_retries=1)
    queue = QueueManager(config=config)
    function = config._ensure_redis_sync if call == "_ensure_redis_sync" else queue.get_queue_status
    for _ in range(5):
        with pytest.raises(ServerUnreachableError):
            function()
    server.start()
    for rejected in (config._ensure_redis_sync, queue.get_queue_status):
        with pytest.raises(CircuitOpenError) as caught:
            rejected()
        assert 0 < caught.value.retry_after <= 30


def test_another_configuration_has_a_breaker_of_its_own(config: QueueConfig, start_server: StartServer) -> None:
    server = start_server()
    server.stop()
    broken = QueueConfig(redis_url=server.url, max_connection_retries=0)
    for _ in range(6):
        with contextlib.suppress(ServerUnreachableError, CircuitOpenError):
            broken._ensure_redis_sync()
    assert config._ensure_redis_sync().ping()
