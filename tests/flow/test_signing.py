"""Signed operations on a real server: what runs, what is refused, and what an operator may retry."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from queue_system import InvalidInputError, QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.maintenance.reclaimer import Reclaimer
from queue_system.model.operation import Operation, decode_item, encode_item, encode_tail
from queue_system.model.signing import Signer, make_signer
from tests.faults.support.bench import WorkerProcess
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, key_space, next_letter, read_record
from tests.kit.inbox import Inbox
from tests.kit.protection import ENTITY, KEYS, SECRET, StreamCipher, push, waiting
from tests.kit.servers import OwnServer
from tests.kit.waiting import eventually
from tests.kit.workers import running

ONCE = QueueRetryConfig(max_attempts=1)
TWICE = QueueRetryConfig.fixed(0.0, max_attempts=2)
TRAP = "trap_of_the_signing_tests"


@pytest.fixture
def signed(make_config: MakeConfig) -> QueueConfig:
    """A configuration that signs."""
    return make_config(signing_keys=KEYS)


def signer_of(config: QueueConfig) -> Signer:
    assert config.signer is not None
    return config.signer


def item_of(signer: Signer | None, queue: str, operation_id: str, **members: Any) -> bytes:
    """An item as a program with these keys writes it, or an unsigned one."""
    item = encode_item(operation_id, b'{"n":1}', encode_tail(Operation(**{"processor": "take", **members})))
    return item if signer is None else signer.sign(queue.encode(), item)


async def test_signed_operations_run_single_in_a_batch_and_later(
    signed: QueueConfig, make_config: MakeConfig, client: redis.Redis, inbox: Inbox
) -> None:
    queue, other = QueueManager(signed), make_config(signing_keys=KEYS)
    other.register_callback(inbox.put, "take", "shop")
    queue.enqueue({"n": 1}, "shop.take", queue_name="jobs")
    queue.enqueue_batch([{"n": 2}, {"n": 3}], "shop.take", queue_name="jobs")
    queue.enqueue({"n": 4}, "shop.take", queue_name="jobs", delay=0.2)
    for item in waiting(client, signed):
        assert decode_item(signer_of(other).verify(b"normal:jobs", item)).processor == "take"
    async with running(QueueWorker(other)):
        assert sorted(entity["n"] for entity in await inbox.take(4)) == [1, 2, 3, 4]
    assert documents(client, signed.system_errors_queue) == []


async def test_retries_and_callbacks_are_signed_so_that_they_run(
    signed: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    queue, calls = QueueManager(signed), 0

    def work(entity: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < 2:
            raise ValueError("boom")
        return "done"

    def fail(entity: Any) -> None:
        raise ValueError("boom")

    queue.enqueue({"n": 1}, work, operation_id="good", retry_config=TWICE, on_success=inbox.put)
    async with running(QueueWorker(signed)):
        assert await inbox.next() == {"entity": {"n": 1}, "operation_id": "good", "result": "done"}
        queue.enqueue({"n": 2}, fail, operation_id="bad", retry_config=TWICE, on_failure=inbox.put)
        assert (await inbox.next())["error"] == "boom"
    found: Any = client.lrange(signed.failures_queue, 0, -1)
    (dead_letter,) = found
    assert json.loads(signer_of(signed).verify(b"letter:normal:fail", dead_letter))["attempts"] == 2
    assert documents(client, signed.system_errors_queue) == []


@pytest.mark.parametrize("kind", ["unsigned", "changed", "moved", "moved while delayed", "of an unknown key"])
async def test_what_nobody_of_ours_signed_is_a_system_error_and_nothing_of_it_is_used(
    signed: QueueConfig, client: redis.Redis, inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its module is not imported, its callback not called and its record not written; the worker goes on."""
    (tmp_path / f"{TRAP}.py").write_text("def run(entity): return entity\n")
    monkeypatch.syspath_prepend(tmp_path)
    signed.registry.application.add_folder(tmp_path)
    monkeypatch.delitem(sys.modules, TRAP, raising=False)
    signed.register_callback(inbox.put, "take", "shop")
    members = {"processor": "run", "processor_module": TRAP, "on_failure": "take", "on_failure_module": "shop"}
    ours, theirs = signer_of(signed), make_signer({"theirs": "some other secret"})
    match kind:
        case "unsigned":
            push(client, signed, item_of(None, "", "odd", **members))
        case "changed":
            push(client, signed, item_of(ours, "normal:jobs", "odd", **members).replace(b'"n":1', b'"n":2'))
        case "moved":
            push(client, signed, item_of(ours, "high:jobs", "odd", **members))
        case "moved while delayed":
            member = b"0\nnormal:jobs\n" + item_of(ours, "high:jobs", "odd", **members)
            client.zadd(signed.keys.delayed, {member: 0})
        case _:
            push(client, signed, item_of(theirs, "normal:jobs", "odd", **members))
    async with running(QueueWorker(signed, max_workers=1)):
        dead_letter = await next_letter(client, signed.system_errors_queue)
        assert TRAP not in sys.modules
        QueueManager(signed).enqueue({"n": 9}, f"{TRAP}.run", on_success="shop.take")
        assert (await inbox.next())["entity"] == {"n": 9}
    assert TRAP in sys.modules
    assert inbox.empty
    assert documents(client, signed.system_errors_queue) == [dead_letter]
    assert (dead_letter["operation_id"], dead_letter["error_type"]) == ("odd", "UndecodableItemError")
    assert dead_letter["failure_reason"].startswith("signature: ")
    assert SECRET not in dead_letter["failure_reason"]
    assert not client.exists(signed.keys.operation("odd"))


async def test_an_unsigned_item_that_the_caller_took_is_refused_too(signed: QueueConfig, client: redis.Redis) -> None:
    item = item_of(None, "", "odd")
    await QueueWorker(signed)._handle_queue_item(0, signed.get_queue_key("jobs").encode(), item)
    (dead_letter,) = documents(client, signed.system_errors_queue)
    assert dead_letter["failure_reason"] == "signature: the item is not signed, although signing_keys are set"


async def test_keys_rotate_without_a_stop(
    make_config: MakeConfig, client: redis.Redis, prefix: str, inbox: Inbox
) -> None:
    """What the old key signed runs where both are known, and what is written there needs the new key."""

    def fail(entity: Any) -> None:
        raise ValueError("boom")

    old = make_config(signing_keys=KEYS)
    both = make_config(signing_keys={"2027": "a secret of the year 2027", **KEYS})
    both.register_callback(fail, "fail", "shop")
    both.register_callback(inbox.put, "take", "shop")
    retry = QueueRetryConfig.fixed(3600.0, max_attempts=2)
    QueueManager(old).enqueue({"n": 1}, "shop.take")
    QueueManager(old).enqueue({"n": 2}, "shop.fail", retry_config=retry)
    async with running(QueueWorker(both)):
        assert await inbox.next() == {"n": 1}
        await eventually(lambda: client.zcard(both.keys.delayed), "the failed operation waits for its retry")
    members: Any = client.zrange(both.keys.delayed, 0, -1)
    (member,) = members
    _, queue, item = member.split(b"\n", 2)
    only_new = make_signer({"2027": "a secret of the year 2027"}, prefix)
    assert only_new is not None
    assert decode_item(only_new.verify(queue, item)).attempts == 1
    client.zadd(both.keys.delayed, {member: 0})
    async with running(QueueWorker(old)):
        dead_letter = await next_letter(client, old.system_errors_queue)
    assert dead_letter["failure_reason"] == "signature: its key '2027' is not among signing_keys"


async def test_what_a_killed_worker_held_is_signed_anew_and_runs_again(
    make_config: MakeConfig, server: OwnServer, client: redis.Redis, prefix: str, inbox: Inbox, tmp_path: Path
) -> None:
    module, entity = "tests.faults.support.processors", {"id": "op", "seconds": 60}
    settings = {"redis_url": server.url, "queue_prefix": prefix, "lease_seconds": 0.5, "signing_keys": KEYS}
    config = make_config(lease_seconds=0.5, signing_keys=KEYS)
    QueueManager(config).enqueue(entity, f"{module}.work", operation_id="op")
    process = WorkerProcess(
        {"config": settings, "worker": {"max_workers": 1}, "only_sleeps": False}, tmp_path / "journal", tmp_path / "log"
    )
    try:
        await eventually((tmp_path / "journal").exists, "the operation runs in the process")
    finally:
        process.kill()
    config.register_callback(inbox.put, "work", module)
    async with running(QueueWorker(config)):
        assert await inbox.next() == entity
    assert read_record(client, config, "op").status == "succeeded"
    assert documents(client, config.system_errors_queue) == []


def test_a_reclaim_signs_what_it_could_verify_and_changes_nothing_else(
    signed: QueueConfig, client: redis.Redis
) -> None:
    """The forged and the unsigned item go back as they are: others may have the keys."""
    commands, run, ours = signed.commands, signed.transport.run, signer_of(signed)
    QueueManager(signed).enqueue({"n": 1}, "shop.take", queue_name="jobs", operation_id="good")
    foreign = (
        item_of(None, "", "unsigned", on_failure="take"), item_of(ours, "high:jobs", "moved", on_failure="take"),
    )  # fmt: skip
    push(client, signed, *foreign, item_of(ours, "normal:jobs", "poison", on_failure="take", crashes=3))
    run(commands.beat("register", "gone", 15_000))
    run(commands.claim("gone", "c1", 4))
    assert run(commands.declare_dead("gone", run(commands.incarnations())["gone"]))
    Reclaimer(signed, signed.shard, lambda: "own", lambda: 1_700_000_000_000).perform()
    items = waiting(client, signed)
    assert sorted(item for item in items if item in foreign) == sorted(foreign)
    back = [decode_item(ours.verify(b"normal:jobs", item)) for item in items if item not in foreign]
    assert {(each.operation_id, each.crashes, each.phase) for each in back} == {
        ("good", 1, ""),
        ("poison", 0, "on_failure"),
    }
    found: Any = client.lrange(signed.system_errors_queue, 0, -1)
    kept = {json.loads(dead_letter)["operation_id"]: dead_letter for dead_letter in found}
    assert kept.keys() == {"poison"}
    assert json.loads(ours.verify(b"letter:normal:jobs", kept["poison"]))["error_type"] == "WorkerDied"


def fail(entity: Any) -> None:
    raise ValueError("boom")


async def bury_signed(signed: QueueConfig, client: redis.Redis) -> None:
    """Let a signed operation fail, and an item that a foreign key has signed be refused."""
    QueueManager(signed).enqueue(ENTITY, fail, queue_name="jobs", operation_id="op", retry_config=ONCE)
    async with running(QueueWorker(signed)):
        await next_letter(client, signed.failures_queue)
    push(client, signed, item_of(make_signer({"theirs": "some other secret"}), "normal:jobs", "odd"))
    async with running(QueueWorker(signed)):
        await next_letter(client, signed.system_errors_queue)


@pytest.mark.parametrize("encryption", [None, StreamCipher(b"key")])
@pytest.mark.parametrize("source", ["failures", "system_errors"])
async def test_without_keys_signed_dead_letters_are_not_put_back_and_stay_as_they_are(
    signed: QueueConfig, make_config: MakeConfig, client: redis.Redis, prefix: str, source: str, encryption: Any
) -> None:
    """Without their signature no worker would take them; dead letters without one go back, and the refusal is loud."""
    await bury_signed(signed, client)
    keyless = make_config(encryption=encryption)
    queue, before = QueueManager(keyless), key_space(client, prefix)
    (shown,) = queue.list_dead_letters(source).letters
    assert not shown.retryable
    choices: list[dict[str, Any]] = [{}, {"letter_ids": [shown.letter_id]}]
    for chosen in choices:
        with pytest.raises(InvalidInputError, match=r"^signing_keys: 1 of these dead letters are signed and stay"):
            queue.retry_dead_letters(source, **chosen)
        with pytest.raises(InvalidInputError, match=r"^signing_keys: "):
            await queue.aretry_dead_letters(source, **chosen)
    assert key_space(client, prefix) == before
    unsigned = json.dumps({"operation_id": "plain", "processor": "take", "queue": "normal:jobs", "failure_reason": "x"})
    client.lpush(f"{prefix}{source}", unsigned)
    with pytest.raises(InvalidInputError, match="1 others were put back"):
        queue.retry_dead_letters(source)
    assert [json.loads(item)["operation_id"] for item in waiting(client, keyless)] == ["plain"]
    assert client.llen(f"{prefix}{source}") == 1
    assert queue.drop_dead_letters(source) == 1


async def test_with_the_keys_signed_dead_letters_go_back(signed: QueueConfig, client: redis.Redis) -> None:
    await bury_signed(signed, client)
    assert QueueManager(signed).retry_dead_letters() == 1


async def test_a_signed_item_holds_under_its_own_prefix_only(
    make_config: MakeConfig, client: redis.Redis, prefix: str
) -> None:
    """Two applications may share a server and a key; an item that is copied from one to the other is refused."""
    one, other = make_config(signing_keys=KEYS), make_config(signing_keys=KEYS, queue_prefix=f"{prefix}other:")
    QueueManager(one).enqueue(ENTITY, "shop.take", queue_name="jobs")
    push(client, other, *waiting(client, one))
    async with running(QueueWorker(other)):
        dead_letter = await next_letter(client, other.system_errors_queue)
    assert dead_letter["failure_reason"] == "signature: it does not belong to this item in this queue"
