"""Encrypted entities and results on a real server: what runs, what is refused, and what can be read in Redis."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from queue_system import (
    ItemTooLargeError,
    QueueManager,
    QueueRetryConfig,
    QueueWorker,
    UndecodableItemError,
    UnserializableError,
)
from queue_system.model.encryption import Cipher
from queue_system.model.operation import Operation, encode_item, encode_tail
from queue_system.model.signing import make_signer
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, key_space, next_letter, read_record
from tests.kit.inbox import Inbox
from tests.kit.protection import ENTITY, KEYS, StreamCipher, push, waiting
from tests.kit.workers import running

RESULT = {"card": "4222-of-the-result"}
TWICE = QueueRetryConfig.fixed(0.0, max_attempts=2)


class Broken(StreamCipher):
    """It cannot encrypt."""

    def encrypt(self, plain: bytes) -> bytes:
        raise PermissionError(plain)


def stored(client: redis.Redis, prefix: str) -> str:
    """All that stands in Redis under the prefix, names included."""
    read: dict[Any, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"none": lambda _: None,  # it has gone meanwhile
    }
    keys = client.scan_iter(match=f"{prefix}*", count=1000)
    return repr([(key, read[client.type(key)](key)) for key in keys])


@pytest.mark.parametrize("keys", [None, KEYS])
@pytest.mark.parametrize("encryption", [None, StreamCipher(b"key")])
def test_signing_and_encryption_work_without_each_other(
    make_config: MakeConfig, client: redis.Redis, keys: dict[str, str] | None, encryption: StreamCipher | None
) -> None:
    config = make_config(signing_keys=keys, encryption=encryption)
    QueueManager(config).enqueue(ENTITY, "shop.take", queue_name="jobs")
    QueueManager(config).enqueue_batch([ENTITY], "shop.take", queue_name="jobs")
    for item in map(json.loads, waiting(client, config)):
        assert ("signature" in item) == (keys is not None)
        assert (item["entity"] == ENTITY) == (encryption is None)


@pytest.mark.parametrize("keys", [None, KEYS])
async def test_neither_entity_nor_result_can_be_read_in_redis(
    make_config: MakeConfig, client: redis.Redis, prefix: str, inbox: Inbox, keys: dict[str, str] | None
) -> None:
    """Not while they wait, run, are retried or told to a callback, nor in records and dead letters."""
    config = make_config(encryption=StreamCipher(b"key"), signing_keys=keys)
    queue, seen = QueueManager(config), []

    def work(entity: Any) -> Any:
        seen.append(stored(client, prefix))
        inbox.put(entity)
        return RESULT

    def fail(entity: Any) -> None:
        seen.append(stored(client, prefix))
        raise ValueError("boom")

    def told(data: Any) -> None:
        seen.append(stored(client, prefix))
        inbox.put(data)

    queue.enqueue(ENTITY, work, operation_id="op", on_success=told)
    queue.enqueue(ENTITY, work, delay=0.1)
    queue.enqueue_batch([ENTITY, ENTITY], work)
    queue.enqueue(ENTITY, fail, retry_config=TWICE, on_failure=told)
    seen.append(stored(client, prefix))
    async with running(QueueWorker(config)):
        received = await inbox.take(6)
    seen.append(stored(client, prefix))
    assert received.count(ENTITY) == 4
    (success,) = [data for data in received if "result" in data]
    (failure,) = [data for data in received if "error" in data]
    assert (success["entity"], success["result"], failure["entity"]) == (ENTITY, RESULT, ENTITY)
    encrypted = read_record(client, config, "op").body["result"]
    assert config.cipher is not None
    assert config.cipher.decrypt(encrypted, "result") == RESULT
    assert len(documents(client, config.failures_queue)) == 1
    assert all("operation:op" in dump and "sealed" in dump for dump in seen)
    assert not [dump for dump in seen if "of-the-entity" in dump or "of-the-result" in dump]


async def test_what_cannot_be_decrypted_is_a_system_error_in_plain_words(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox
) -> None:
    config, other = make_config(encryption=StreamCipher(b"key")), make_config(encryption=StreamCipher(b"another"))
    other.register_callback(inbox.put, "take", "shop")
    QueueManager(config).enqueue(ENTITY, "shop.take", operation_id="op", deduplication_key="once")
    async with running(QueueWorker(other)):
        dead_letter = await next_letter(client, other.system_errors_queue)
        QueueManager(other).enqueue({"n": 1}, "shop.take", deduplication_key="once")
        assert await inbox.next() == {"n": 1}
    assert inbox.empty
    assert dead_letter["failure_reason"] == "entity: it cannot be decrypted (PermissionError)"
    assert dead_letter["entity"].keys() == {"sealed"}
    record = read_record(client, other, "op")
    assert (record.status, record.body["error"]) == ("rejected", dead_letter["failure_reason"])


@pytest.mark.parametrize("name, entity", [("enqueue", ENTITY), ("enqueue_batch", [ENTITY])])
def test_what_cannot_be_encrypted_is_not_enqueued(
    make_config: MakeConfig, client: redis.Redis, prefix: str, name: str, entity: Any
) -> None:
    queue, before = QueueManager(make_config(encryption=Broken(b"key"))), key_space(client, prefix)
    with pytest.raises(UnserializableError, match=r"^entity: it cannot be encrypted \(PermissionError\)"):
        getattr(queue, name)(entity, "shop.take")
    assert key_space(client, prefix) == before


def test_the_size_of_an_item_is_that_of_the_encrypted_one(make_config: MakeConfig) -> None:
    plain = make_config(max_item_bytes=220)
    encrypted = make_config(max_item_bytes=220, encryption=StreamCipher(b"key"), signing_keys=KEYS)
    QueueManager(plain).enqueue(ENTITY, "shop.take")
    with pytest.raises(ItemTooLargeError):
        QueueManager(encrypted).enqueue(ENTITY, "shop.take")


async def test_what_former_releases_signed_and_encrypted_still_runs(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox
) -> None:
    """They covered neither the prefix nor, in what was encrypted, the operation."""
    cipher = StreamCipher(b"key")
    config = make_config(signing_keys=KEYS, encryption=cipher)
    config.register_callback(inbox.put, "take", "shop")
    signer = make_signer(KEYS)
    assert signer is not None
    encrypted = Cipher(cipher).encrypt(json.dumps(ENTITY).encode(), "entity")
    tail = encode_tail(Operation(processor="take", processor_module="shop"))
    push(client, config, signer.sign(b"normal:jobs", encode_item("old", encrypted, tail)))
    async with running(QueueWorker(config)):
        assert await inbox.next() == ENTITY


@pytest.mark.parametrize("field", ["entity", "result"])
async def test_what_is_encrypted_is_read_for_its_own_operation_field_and_prefix_only(
    make_config: MakeConfig, client: redis.Redis, prefix: str, inbox: Inbox, field: str
) -> None:
    """Else who can write to the server could let one customer's result be read as another's."""
    config = make_config(encryption=StreamCipher(b"key"))
    config.register_callback(lambda entity: RESULT, "work", "shop")
    queue = QueueManager(config)
    for name in ("a", "b"):
        queue.enqueue(ENTITY, "shop.work", operation_id=name)
    key = config.get_queue_key("work")
    if field == "entity":
        item: Any = client.lindex(key, 0)
        client.lset(key, 0, item.replace(b'"operation_id":"b"', b'"operation_id":"c"'))
    async with running(QueueWorker(config)):
        if field == "entity":
            dead_letter = await next_letter(client, config.system_errors_queue)
            assert dead_letter["failure_reason"] == "entity: it was encrypted for another operation, field or prefix"
        assert (await queue.await_for("a", 10)).result == RESULT
        if field == "result":
            await queue.await_for("b", 10)
    record: Any = client.get(config.keys.operation("a"))
    client.set(config.keys.operation("x"), record)
    with pytest.raises(UndecodableItemError, match="another operation, field or prefix"):
        queue.get_operation("x")
    other = make_config(encryption=StreamCipher(b"key"), queue_prefix=f"{prefix}other:")
    client.set(other.keys.operation("a"), record)
    with pytest.raises(UndecodableItemError, match="another operation, field or prefix"):
        QueueManager(other).get_operation("a")
