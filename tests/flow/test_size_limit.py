"""The largest item: what is larger is never decoded, and what a worker adds to an item does not count."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
import redis

from queue_system import ItemTooLargeError, QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.maintenance.reclaimer import Reclaimer
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, next_letter
from tests.kit.foreign import die, push
from tests.kit.inbox import Inbox
from tests.kit.workers import first_letter, running

LIMIT = 2000
LARGE = b'{"operation_id":"large","processor":"take","processor_module":"shop","entity":"%b"}' % (b"x" * 3 * LIMIT)
SMALL = b'{"operation_id":"small","processor":"take","processor_module":"shop","entity":"small"}'


@pytest.fixture
def config(make_config: MakeConfig) -> QueueConfig:
    """A configuration with a low limit."""
    return make_config(max_item_bytes=LIMIT)


def check_kept_as_it_came(client: redis.Redis, config: QueueConfig) -> None:
    (letter,) = documents(client, config.system_errors_queue)
    assert f"more than max_item_bytes = {LIMIT}" in letter["failure_reason"]
    assert letter["error_type"] == "UndecodableItemError"
    assert base64.b64decode(letter["raw_base64"]) == LARGE
    assert "processor" not in letter


async def test_a_foreign_item_above_the_limit_goes_undecoded_to_the_system_errors(
    config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, "take", "shop")
    push(client, config, LARGE, SMALL)
    async with running(QueueWorker(config, max_workers=1)):
        await next_letter(client, config.system_errors_queue)
        assert await inbox.next() == "small"
    assert inbox.empty
    check_kept_as_it_came(client, config)


async def test_an_item_taken_by_hand_is_under_the_same_limit(
    config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, "take", "shop")
    await QueueWorker(config)._handle_queue_item(0, config.get_queue_key("foreign").encode(), LARGE)
    assert inbox.empty
    check_kept_as_it_came(client, config)


async def test_an_item_at_the_limit_is_retried_and_its_callbacks_get_results_and_errors_of_any_allowed_size(
    config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    """Counts, results and errors take it beyond what may be enqueued; it is processed all the same."""
    result = "r" * (LIMIT - 2)
    failed: list[bool] = []

    async def work(entity: dict[str, Any]) -> str:
        if entity["fails"] or not failed:
            failed.append(entity["fails"])
            raise ValueError("\n" * 8000)
        return result

    manager = QueueManager(config)
    retry = QueueRetryConfig.fixed(0.0, max_attempts=2)
    for fails in (False, True):
        enqueue_largest(manager, {"fails": fails}, work, retry_config=retry, on_success=inbox.put, on_failure=inbox.put)
        async with running(QueueWorker(config)):
            data = await inbox.next()
        assert data.get("result") == (None if fails else result)
        assert data.get("error", "").count("\n") == (8000 if fails else 0)
    assert not client.llen(config.system_errors_queue)


def enqueue_largest(manager: QueueManager, entity: dict[str, Any], *arguments: Any, **options: Any) -> None:
    """Enqueue an entity with as much padding as is allowed."""
    padding = LIMIT
    while True:
        try:
            manager.enqueue({**entity, "padding": "p" * padding}, *arguments, **options)
        except ItemTooLargeError:
            padding -= 1
        else:
            return


HUGE = b'{"operation_id":"huge","processor":"take","entity":"%b"}' % (b"x" * 3_000_000)


def kept_in(client: redis.Redis, config: QueueConfig) -> str:
    """Return the key that the only letter names; the letter is small and tells what it is about."""
    (letter,) = documents(client, config.system_errors_queue)
    assert len(json.dumps(letter)) < 3_000
    assert f"it has {len(HUGE)} bytes, more than max_item_bytes = {LIMIT}" in letter["failure_reason"]
    assert letter["kept_in"] in letter["failure_reason"]
    assert (letter["operation_id"], letter["bytes"], letter["queue"]) == ("huge", len(HUGE), "normal:foreign")
    assert letter["sha1"] == hashlib.sha1(HUGE, usedforsecurity=False).hexdigest()
    assert letter["head"] == HUGE[:1024].decode()
    return str(letter["kept_in"])


@pytest.mark.parametrize("settings", [{}, {"signing_keys": {"k": "secret-of-sixteen-bytes"}}], ids=["plain", "signed"])
async def test_an_item_far_above_the_limit_stays_on_the_server_and_its_letter_tells_where(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox, settings: dict[str, Any]
) -> None:
    config = make_config(max_item_bytes=LIMIT, **settings)
    config.register_callback(inbox.put, "take", "shop")
    push(client, config, HUGE)
    await QueueManager(config).aenqueue({}, "take", priority="low", operation_id="small")
    await first_letter(config, client, "system_errors", max_workers=1)
    assert client.get(kept_in(client, config)) == HUGE
    assert client.hlen(config.keys.workers) == 0


async def test_such_a_letter_is_listed_not_retried_and_takes_its_bytes_along_when_it_is_dropped(
    config: QueueConfig, client: redis.Redis
) -> None:
    push(client, config, HUGE)
    other = f"{config.queue_prefix}oversized:1"
    client.set(other, "another's")
    config.transport.run(config.commands.sweep("0", 0))
    await QueueWorker(config)._process_queue_item(0)
    queue, key = QueueManager(config), kept_in(client, config)
    client.lpush(config.system_errors_queue, json.dumps({"kept_in": config.keys.registry, "failed_at": 1}))
    _, letter = queue.list_dead_letters("system_errors").letters
    assert (letter.operation_id, letter.queue, letter.retryable) == ("huge", "foreign", False)
    assert queue.retry_dead_letters("system_errors") == 0
    assert client.exists(key)
    assert queue.drop_dead_letters("system_errors") == 2
    assert client.exists(key) == 0
    assert client.exists(other, config.keys.registry) == 2, "no letter leads to a key of another kind"


async def test_a_large_item_that_was_in_flight_is_told_of_once_when_its_worker_dies(
    config: QueueConfig, client: redis.Redis
) -> None:
    """What was set aside is small from then on, whoever settles it."""
    push(client, config, HUGE)
    commands, run = config.commands, config.transport.run
    run(commands.sweep("0", 0))
    run(commands.beat("register", "dead", 1000))
    claimed = run(commands.claim("dead", "c1", 5))
    assert claimed is not None
    die(config, "dead")
    Reclaimer(config, config.shard, lambda: "", lambda: claimed.now_ms)._take_over("dead", last=False)
    assert client.get(kept_in(client, config)) == HUGE
    assert client.hlen(config.keys.workers) == 0
