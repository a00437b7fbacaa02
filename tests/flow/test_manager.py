"""The manager: answers, deduplication, batches, status and purging."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.contents import key_space, read_record
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.operations import process
from tests.kit.workers import running


def length(client: redis.Redis, config: QueueConfig, name: str = "process", priority: str = "normal") -> int:
    count: Any = client.llen(config.get_queue_key(name, priority))
    return int(count)


def test_an_id_that_is_known_adds_nothing(queue: QueueManager, client: redis.Redis) -> None:
    queue.enqueue({"n": 1}, process, operation_id="op")
    before = key_space(client, queue.config.queue_prefix)
    again = queue.enqueue({"n": 2}, process, operation_id="op")
    assert (again["status"], again["operation_id"]) == ("duplicate", "op")
    assert key_space(client, queue.config.queue_prefix) == before
    statuses = [a["status"] for a in queue.enqueue_batch([{}, {}], process, operation_id=["op", "other"])]
    assert statuses == ["duplicate", "queued"]
    assert queue.config.get_metrics()["enqueued"] == 2


async def test_a_deduplication_key_is_taken_while_its_operation_is_live(
    queue: QueueManager, client: redis.Redis, inbox: Inbox
) -> None:
    first = queue.enqueue({"n": 1}, inbox.put, deduplication_key="key")
    again = queue.enqueue({"n": 2}, inbox.put, deduplication_key="key")
    assert (again["status"], again["operation_id"]) == ("duplicate", first["operation_id"])
    assert queue.enqueue({"n": 3}, inbox.put, deduplication_key="other")["status"] == "queued"
    async with running(QueueWorker(queue.config)):
        await inbox.take(2)
    assert not client.exists(f"{queue.config.queue_prefix}dedup")
    assert queue.enqueue({"n": 4}, inbox.put, deduplication_key="key")["status"] == "queued"


def test_a_deduplication_key_heals_itself_after_its_lifetime(make_config: MakeConfig) -> None:
    queue = QueueManager(make_config(dedup_ttl=0.001))
    assert queue.enqueue({}, process, deduplication_key="key")["status"] == "queued"
    time.sleep(0.005)  # the lifetime is what is tested
    assert queue.enqueue({}, process, deduplication_key="key")["status"] == "queued"


def test_a_batch_takes_ids_and_deduplication_keys_as_lists(queue: QueueManager, client: redis.Redis) -> None:
    answers = queue.enqueue_batch(
        [{"n": n} for n in range(3)], process, operation_id=["a", "b", "c"], deduplication_key=["x", "y", "x"]
    )
    assert [(a["operation_id"], a["status"]) for a in answers] == [("a", "queued"), ("b", "queued"), ("a", "duplicate")]
    assert length(client, queue.config) == 2
    assert read_record(client, queue.config, "b").deduplication_key == "y"


def test_an_empty_batch_does_nothing(queue: QueueManager, client: redis.Redis) -> None:
    assert queue.enqueue_batch([], process) == []
    assert key_space(client, queue.config.queue_prefix) == {}


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2000])
def test_a_batch_of_any_size_keeps_its_order(
    queue: QueueManager, client: redis.Redis, log: LineLogger, count: int
) -> None:
    answers = queue.enqueue_batch([{"n": n} for n in range(count)], process)
    items: Any = client.lrange(queue.config.get_queue_key("process"), 0, -1)
    ids = [item[17:49].decode() for item in reversed(items)]
    assert ids == [answer["operation_id"] for answer in answers]
    (line,) = [fields for fields in log.of("Queue metric update") if fields["metric_name"] == "batch_enqueue"]
    assert line["metric_value"] == count


def test_a_batch_of_large_items_is_sent_in_several_requests(queue: QueueManager, client: redis.Redis) -> None:
    answers = queue.enqueue_batch([{"blob": "x" * 900_000}] * 20, process)
    assert {answer["status"] for answer in answers} == {"queued"}
    assert length(client, queue.config) == 20


def test_status_lists_every_queue_and_the_fleets_figures(queue: QueueManager) -> None:
    queue.enqueue({}, process)
    queue.enqueue({}, process, priority="high", queue_name="mail")
    queue.enqueue_batch([{}] * 3, process, priority="low")
    queue.enqueue({}, process, delay=60, queue_name="later")
    prefix = queue.config.queue_prefix
    status = queue.get_queue_status()
    assert abs(status.pop("status_time") - time.time()) < 60
    assert status == {
        f"{prefix}normal:process": 1, f"{prefix}high:mail": 1, f"{prefix}low:process": 3, f"{prefix}normal:later": 0,
        f"{prefix}failures": 0, f"{prefix}system_errors": 0, f"{prefix}delayed": 1, f"{prefix}running": 0,
        "total_items": 5, "metrics": {"enqueued": 6},
    }  # fmt: skip


def test_status_covers_more_queues_than_one_page(queue: QueueManager, client: redis.Redis) -> None:
    config = queue.config
    client.sadd(config.get_registry_key(), *(config.get_queue_key(f"q{n}") for n in range(1500)))
    queue.enqueue({}, process, queue_name="q7")
    status = queue.get_queue_status()
    assert sum(key.startswith(f"{config.queue_prefix}normal:") for key in status) == 1500
    assert status["total_items"] == 1


def test_purging_removes_waiting_and_delayed_items_of_one_queue_only(queue: QueueManager, client: redis.Redis) -> None:
    queue.enqueue_batch([{"n": n} for n in range(2300)], process)
    queue.enqueue({}, process, delay=60, operation_id="late", deduplication_key="key")
    queue.enqueue({}, process, priority="high", operation_id="other", delay=60)
    queue.enqueue({}, process, queue_name="process2", operation_id="third")
    assert queue.purge_queue("process") == 2301
    assert queue.purge_queue("process") == 0
    config = queue.config
    left = {key.removeprefix(config.queue_prefix.encode()) for key in key_space(client, config.queue_prefix)}
    assert {key for key in left if key.startswith(b"operation:")} == {b"operation:other", b"operation:third"}
    assert b"dedup" not in left
    assert queue.enqueue({}, process, deduplication_key="key")["status"] == "queued"
    assert queue.get_queue_status()[config.keys.delayed] == 1
    assert queue.get_queue_status()["metrics"]["purged"] == 2301


def test_a_hash_ignores_the_order_of_members_and_tells_values_apart(queue: QueueManager) -> None:
    assert queue._hash_entity({"a": 1, "b": [1, 2]}) == queue._hash_entity({"b": [1, 2], "a": 1})
    assert len({queue._hash_entity(entity) for entity in ({"a": 1}, {"a": 1.5}, {"a": "1"}, {"b": 1}, {})}) == 5


def test_the_private_steps_of_enqueue_do_what_their_names_say(queue: QueueManager, client: redis.Redis) -> None:
    assert queue._serialize_entity({"a": {1}}) == '{"a":[1]}'
    assert queue._serialize_entity({"a": print}, lambda value: value.__name__) == '{"a":"print"}'
    assert len(queue._generate_operation_id()) == 32
    data = {"entity": {"n": 1}, "processor": "process"}
    answer = queue._queue_operation(data, "jobs", "low")
    assert (answer["status"], answer["has_callbacks"]) == ("queued", False)
    assert data == {"entity": {"n": 1}, "processor": "process"}
    assert length(client, queue.config, "jobs", "low") == 1


def test_a_clients_own_settings_do_not_change_what_is_stored_or_answered(
    make_config: MakeConfig, client: redis.Redis, server: Any
) -> None:
    with server.client(decode_responses=True, encoding="latin-1") as odd:
        queue = QueueManager(make_config(redis_client=odd, redis_url=None))
        assert queue.enqueue({"a": "ä"}, process)["status"] == "queued"
        assert queue.get_queue_status()["total_items"] == 1
        assert queue.config._ensure_redis_sync() is odd
    item: Any = client.lindex(queue.config.get_queue_key("process"), 0)
    assert '"ä"'.encode() in item


def test_closing_the_client_is_safe(queue: QueueManager) -> None:
    assert not queue.config.redis_client
    queue.enqueue({}, process)
    client = queue.config._ensure_redis_sync()
    assert queue.config.redis_client is client
    client.close()
    assert queue.enqueue({}, process)["status"] == "queued"


def test_a_constructor_does_no_input_or_output() -> None:
    config = QueueConfig(redis_url="redis://no-such-host.invalid:1")
    QueueManager(config)
    QueueWorker(config)
    assert config.redis_client is None
