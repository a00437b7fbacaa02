"""What cannot be decoded or resolved goes once to the system errors, with the reason, and the worker goes on."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, next_letter, read_record
from tests.kit.foreign import die, hold, push, reclaimer
from tests.kit.inbox import Inbox
from tests.kit.operations import process
from tests.kit.waiting import eventually
from tests.kit.workers import first_letter, running


async def check_worker_goes_on(queue: QueueManager, inbox: Inbox) -> None:
    """The only slot of the worker still runs operations."""
    queue.enqueue({"n": "next"}, inbox.put, queue_name="next")
    assert await inbox.next() == {"n": "next"}


@pytest.mark.parametrize(
    "item",
    [
        b"", b"hello", b"\xff\x00", b"null", b"[1]", b'{"entity":1}', b'{"processor":5}', b'{"processor":"process"',
        b'{"processor":"process","attempts":"x"}', rb'{"processor":"process","operation_id":"a\"b"}',
        b'{"processor":"process","attempts":-9000000000000000000}', b'{"processor":"process","delays":[-5]}',
        b'{"processor":"process","crashes":-9000000000000000000}', b'{"processor":"process","due":-9e18}',
    ],
)  # fmt: skip
async def test_an_undecodable_item_is_kept_as_it_was_and_never_starts(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox, item: bytes
) -> None:
    """Counts below zero would let it be retried, or kill workers, without end."""
    config.register_callback(inbox.put, "process")
    push(client, config, item, name="process")
    async with running(QueueWorker(config, max_workers=1)):
        letter = await next_letter(client, config.system_errors_queue)
        await check_worker_goes_on(queue, inbox)
    assert documents(client, config.system_errors_queue) == [letter]
    assert (letter["error_type"], letter["queue"]) == ("UndecodableItemError", "normal:process")
    assert letter["failure_reason"]
    if "raw_base64" in letter:
        assert base64.b64decode(letter["raw_base64"]) == item
    else:
        assert letter.items() >= json.loads(item).items()
    assert not client.llen(config.failures_queue)
    assert inbox.empty


@pytest.mark.parametrize(
    "member",
    [
        b'"attempts":-1', b'"attempts":18446744073709551615', b'"timestamp":1e308', b'"first_attempt_time":1e308',
        b'"max_attempts":0', b'"delays":[-1]', b'"delays":[]', b'"timeout":-1', b'"retry_timeout":-1', b'"crashes":-7',
        b'"\xff":1', b'"phase":"other"', b'"processor_module":"os"', b'"on_failure":"os.system"',
    ],
)  # fmt: skip
async def test_a_foreign_member_that_makes_no_sense_never_stops_a_worker(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox, member: bytes
) -> None:
    """Whatever becomes of that operation, it does not stay in flight and its slot runs the next one."""

    def explode(entity: Any) -> None:
        raise ValueError("boom")

    config.register_callback(explode, "explode", "shop")
    push(client, config, b'{"operation_id":"odd","processor":"explode","processor_module":"shop",%b}' % member)

    def settled() -> bool:
        status = queue.get_queue_status()
        kept = status[config.failures_queue] + status[config.system_errors_queue] + status[config.keys.delayed]
        return bool(kept == 1 and status["total_items"] == status[f"{config.queue_prefix}running"] == 0)

    async with running(QueueWorker(config, max_workers=1)):
        await eventually(settled, "the odd operation is retried or a dead letter", 3.0)
        await check_worker_goes_on(queue, inbox)


@pytest.mark.parametrize(
    "processor, reason",
    [
        ("no.such.function", "cannot be found"),
        ("nowhere", "not registered"),
        ("os.system", "not application code"),
        ("msgspec.json.encode", "installed package"),
        (f"{__name__}.absent", "has no function"),
        (f"{__name__}.QueueWorker", "has no function"),
    ],
)
async def test_an_unresolvable_processor_is_a_system_error(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox, processor: str, reason: str
) -> None:
    """It spends no attempt and is not retried, although the retry configuration would allow it."""
    answer = queue.enqueue({"n": 1}, processor, deduplication_key="key", retry_config=QueueRetryConfig.fixed(0.01))
    async with running(QueueWorker(config, max_workers=1)):
        letter = await next_letter(client, config.system_errors_queue)
        await check_worker_goes_on(queue, inbox)
    assert documents(client, config.system_errors_queue) == [letter]
    assert reason in letter["failure_reason"]
    assert (letter["operation_id"], letter["entity"], letter["attempts"]) == (answer["operation_id"], {"n": 1}, 0)
    assert letter["error_type"] == "UnresolvableNameError"
    record = read_record(client, config, answer["operation_id"])
    assert (record.status, record.body["error"]) == ("rejected", letter["failure_reason"])
    assert config.get_metrics()["system_errors"] == 1
    assert config.get_metrics()["failed"] == 0
    assert queue.enqueue({"n": 2}, processor, deduplication_key="key")["status"] == "queued"


async def test_the_failure_callback_of_an_unresolvable_processor_is_called(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    queue.enqueue({"n": 1}, "no.such.function", on_failure=inbox.put, operation_id="op")
    async with running(QueueWorker(config)):
        data = await inbox.next()
    assert (data["operation_id"], data["entity"]) == ("op", {"n": 1})
    assert "cannot be found" in data["error"]


@pytest.mark.parametrize("kind", ["lambda", "closure"])
async def test_a_lambda_or_closure_of_another_process_is_a_system_error_with_the_way_out(
    queue: QueueManager, make_config: MakeConfig, client: redis.Redis, kind: str
) -> None:
    """Another configuration has another registry, as another process has."""

    def closure(entity: Any) -> None: ...

    queue.enqueue({"n": 1}, closure if kind == "closure" else lambda entity: None)
    letter = await first_letter(make_config(), client, "system_errors")
    assert f"is a {kind}" in letter["failure_reason"]
    assert "module-level function" in letter["failure_reason"]
    assert letter["entity"] == {"n": 1}


async def test_an_item_without_an_id_is_processed_and_named_after_its_token(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, "take", "shop")
    push(client, config, b'{"processor":"take","processor_module":"shop","entity":5,"on_success":"take"}')
    async with running(QueueWorker(config)):
        assert await inbox.next() == 5
        data = await inbox.next()
    assert data["operation_id"].startswith("token-")
    assert read_record(client, config, data["operation_id"]).status == "succeeded"


async def test_a_list_of_a_foreign_type_is_reported_and_skipped(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox, log: Any
) -> None:
    queue.enqueue({"n": 1}, process)
    client.delete(config.get_queue_key("process"))
    client.set(config.get_queue_key("process"), "foreign")
    async with running(QueueWorker(config)):
        await check_worker_goes_on(queue, inbox)
    assert log.of("a list holds a foreign type and is skipped") == [{"key": config.get_queue_key("process")}]
    assert client.get(config.get_queue_key("process")) == b"foreign"


@pytest.mark.parametrize(
    "member", [b'"\xff":1', b'"crashes":18446744073709551615', b'"crashes":3,"timestamp":1e308', b'"crashes":-7', b"5"]
)
def test_an_odd_item_of_a_dead_worker_does_not_keep_its_neighbours_in_flight(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, member: bytes
) -> None:
    """A reclaimer that cannot handle one item would find it again at every look."""
    push(client, config, b'{"operation_id":"odd","processor":"process",%b}' % member, name="process")
    queue.enqueue({"n": 1}, process)
    hold(config, "gone", claims=2)
    assert queue.get_queue_status()[f"{config.queue_prefix}running"] == 2
    die(config, "gone")
    reclaimer(config).perform()
    status = queue.get_queue_status()
    assert status[f"{config.queue_prefix}running"] == 0
    assert status["total_items"] + status[config.system_errors_queue] == 2
