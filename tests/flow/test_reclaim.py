"""What a reclaimer does with the dead: each incarnation for itself, each item by those who can judge it."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import pytest
import redis

from queue_system import QueueConfig, QueueManager
from queue_system.broker.requests import NewOperation
from queue_system.maintenance.discovery import Discovery
from queue_system.model.keys import Keys
from queue_system.model.signing import Signer
from tests.kit import foreign
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, record_of
from tests.kit.foreign import die, reclaimer

LEASE_S = 0.7
QUEUE = "normal:jobs"
KEYS = {"k1": "a secret of many bytes"}
OTHER_KEYS = {"k2": "another secret of many bytes"}
SAME_ID = {"k1": "another secret of many bytes"}


def item_of(operation_id: str, **members: Any) -> bytes:
    return msgspec.json.encode({"operation_id": operation_id, "entity": {}, "processor": "work", **members})


def hold(config: QueueConfig, incarnation: str, *items: bytes, dead: bool = True) -> None:
    """Let an incarnation hold items of the queue, and die."""
    foreign.hold(config, incarnation, *(b"%b\n%b" % (QUEUE.encode(), item) for item in items))
    if dead:
        die(config, incarnation)


def waiting(client: redis.Redis, config: QueueConfig) -> list[bytes]:
    """The items of the queue, the next one first."""
    found: Any = client.lrange(config.get_queue_key("jobs"), 0, -1)
    return list(found[::-1])


@pytest.fixture
def config(make_config: MakeConfig) -> QueueConfig:
    return make_config(lease_seconds=LEASE_S)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("broken", ["string", "#field", "both"])
def test_a_broken_incarnation_keeps_none_of_the_others_from_being_reclaimed(
    config: QueueConfig, client: redis.Redis, broken: str
) -> None:
    """Its own entry goes, and what a stranger wrote in its place stays as it is."""
    for name in ("a", "b", "c"):
        hold(config, name, item_of(name))
    hold(config, "broken")
    key = config.keys.inflight("broken")
    if broken == "#field":
        client.hset(key, "#later", "x")
    else:
        client.set(key, "foreign")
    if broken == "both":
        client.hset(config.keys.inflight("a"), "#later", "x")
    reclaimer(config).perform()
    assert {msgspec.json.decode(item)["operation_id"] for item in waiting(client, config)} == {"a", "b", "c"}
    assert config.transport.run(config.commands.incarnations()) == {}
    assert client.exists(key) == (broken != "#field")


@pytest.mark.timeout(30)
def test_what_cannot_be_moved_is_tried_again_at_the_next_look_and_not_before(
    config: QueueConfig, client: redis.Redis
) -> None:
    hold(config, "gone", item_of("a"))
    client.set(config.system_errors_queue, "foreign")
    reclaimer(config).perform()
    assert config.transport.run(config.commands.incarnations()).keys() == {"dead:gone"}
    client.delete(config.system_errors_queue)
    reclaimer(config).perform()
    assert len(waiting(client, config)) == 1


@pytest.mark.timeout(30)
def test_a_field_of_another_kind_does_not_keep_an_incarnation_from_leaving(
    config: QueueConfig, client: redis.Redis
) -> None:
    hold(config, "worker", dead=False)
    client.hset(config.keys.inflight("worker"), "#later", "x")
    assert config.transport.run(config.commands.beat("leave", "worker", 15_000)).tokens == 0
    assert not client.exists(config.keys.workers, config.keys.inflight("worker"))


def test_who_has_lost_his_entry_is_reclaimed_at_the_next_look(config: QueueConfig, client: redis.Redis) -> None:
    """As after DEL queue:workers: his claims and settlements are refused, so nobody else ever frees what he held."""
    hold(config, "lost", item_of("a"), dead=False)
    watcher = reclaimer(config)
    watcher.perform()
    client.delete(config.keys.workers)
    watcher.perform()
    watcher.perform()
    assert len(waiting(client, config)) == 1
    assert not client.exists(config.keys.workers, config.keys.inflight("lost"))


def test_an_orphan_that_nobody_has_seen_alive_is_found_by_a_sweep(config: QueueConfig, client: redis.Redis) -> None:
    hold(config, "lost", item_of("a"), dead=False)
    client.delete(config.keys.workers)
    Discovery(config, config.shard).perform()
    reclaimer(config).perform()
    assert len(waiting(client, config)) == 1
    assert not client.exists(f"{config.queue_prefix}incarnations")


def signed(keys: dict[str, str] | None, item: bytes) -> bytes:
    if keys is None:
        return item
    return Signer({name.encode(): secret.encode() for name, secret in keys.items()}).sign(QUEUE.encode(), item)


@pytest.mark.parametrize(
    "settings, item",
    [
        ({"max_item_bytes": 100}, item_of("a", padding="x" * 1000)),
        ({"signing_keys": OTHER_KEYS}, signed(KEYS, item_of("a"))),
        ({"signing_keys": SAME_ID}, signed(KEYS, item_of("a"))),
        ({"signing_keys": KEYS}, item_of("a")),
        ({}, signed(KEYS, item_of("a"))),
        ({"signing_keys": OTHER_KEYS, "max_item_bytes": 100}, signed(KEYS, item_of("a", crashes=3, padding="x" * 999))),
    ],
    ids=["limit", "other keys", "other secret", "unsigned", "no keys", "keys and limit"],
)
def test_what_a_reclaimer_cannot_judge_goes_back_unchanged(
    make_config: MakeConfig, client: redis.Redis, settings: dict[str, Any], item: bytes
) -> None:
    """A worker with the settings of whoever enqueued it runs it; a change or a dead letter would take it from him."""
    config = make_config(lease_seconds=LEASE_S, **settings)
    hold(config, "gone", item)
    reclaimer(config).perform()
    assert waiting(client, config) == [item]
    assert client.llen(config.system_errors_queue) == 0
    assert config.transport.run(config.commands.incarnations()) == {}


def test_those_who_can_judge_an_item_come_first(make_config: MakeConfig, client: redis.Redis) -> None:
    """Else the deaths of its workers would not be counted in a fleet of several settings."""
    able, unable = make_config(signing_keys=KEYS), make_config(lease_seconds=LEASE_S, signing_keys=OTHER_KEYS)
    signer = able.signer
    assert signer is not None
    hold(unable, "gone", signer.sign(QUEUE.encode(), item_of("a", crashes=1)))
    other = threading.Thread(target=reclaimer(unable).perform)
    other.start()
    reclaimer(able).perform()
    other.join()
    (item,) = waiting(client, able)
    assert item == signer.sign(QUEUE.encode(), item_of("a", crashes=2))


@pytest.mark.parametrize("phase", ["", "on_success"])
def test_what_a_reclaimer_dead_letters_is_logged_with_its_id_and_counted(
    make_config: MakeConfig, client: redis.Redis, phase: str
) -> None:
    config, told = make_config(lease_seconds=LEASE_S), []
    hold(config, "gone", item_of("poison", crashes=3, phase=phase), item_of("innocent"), b"garbage")
    reclaimer(config, rejected=lambda queue, operation: told.append((queue, operation.operation_id))).perform()
    lines = {line["operation_id"]: line for line in config.logger.of("operation rejected")}
    (garbage,) = lines.keys() - {"poison"}
    assert garbage.startswith("token-")
    assert (lines["poison"]["processor"], lines["poison"]["error_type"]) == ("work", "WorkerDied")
    assert "died 4 times" in lines["poison"]["error"]
    assert (config.get_metrics()["system_errors"], config.get_metrics()["errors"]) == (2, 2)
    assert sorted(told) == [(QUEUE.encode(), ""), (QUEUE.encode(), "poison")]
    assert len(documents(client, config.system_errors_queue)) == 2


def test_two_reclaimers_count_a_dead_letter_once(make_config: MakeConfig) -> None:
    configs = [make_config(lease_seconds=LEASE_S) for _ in range(2)]
    hold(configs[0], "gone", *(item_of(f"poison{i}", crashes=3) for i in range(20)))
    threads = [threading.Thread(target=reclaimer(config).perform) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(config.get_metrics()["system_errors"] for config in configs) == 20


@pytest.mark.parametrize("crashes, status", [(0, "queued"), (1, "queued"), (2, "queued"), (3, "system_error")])
def test_a_record_tells_how_often_the_operations_worker_died(config: QueueConfig, crashes: int, status: str) -> None:
    run, commands = config.transport.run, config.commands
    new = NewOperation("a", item_of("a", crashes=crashes, timestamp=1_600_000_000, attempts=1))
    run(commands.enqueue(QUEUE, "n", [new], dedup_ttl_ms=1000))
    foreign.hold(config, "gone", claims=1)
    die(config, "gone")
    assert record_of(QueueManager(config), "a").crashes == 0
    reclaimer(config).perform()
    record = record_of(QueueManager(config), "a")
    assert (record.status, record.crashes, record.attempts) == (status, crashes + 1, 1)
    assert record.enqueued_at == 1_600_000_000
    assert (record.queue, record.priority) == ("jobs", "normal")


def test_no_death_changes_the_record_of_an_operation_that_has_ended(config: QueueConfig, client: redis.Redis) -> None:
    """Its callback was in flight."""
    hold(config, "gone", item_of("a", phase="on_success", result=1), item_of("b"))
    ended = b"succeeded\t\t7\tnormal:jobs\t\t1\t5\t6\tw\n"
    for name in ("a", "b"):
        client.set(config.keys.operation(name), ended)
    reclaimer(config).perform()
    assert len(waiting(client, config)) == 2
    assert client.get(config.keys.operation("a")) == client.get(config.keys.operation("b")) == ended


def test_who_rests_begins_to_watch_as_soon_as_nobody_does(config: QueueConfig) -> None:
    """Every watcher may die at once; a rest of ten leases would delay what they held by as much."""
    resting, watching = reclaimer(config), reclaimer(config)
    now = time.monotonic() + 100.0
    assert resting.decide(now, 10**9)
    watching.perform()
    assert resting.perform() < resting.interval_s
    deadline = time.monotonic() + 20 * LEASE_S
    while resting.rests and time.monotonic() < deadline:
        time.sleep(resting.perform())
    assert not resting.rests


def test_who_rests_goes_on_resting_while_somebody_watches(make_config: MakeConfig) -> None:
    config = make_config(lease_seconds=30.0)
    resting, watching = reclaimer(config), reclaimer(config)
    assert resting.decide(time.monotonic() + 1000.0, 10**9)
    for _ in range(20):
        watching.perform()
        resting.perform()
        assert resting.rests


def test_a_sign_of_a_foreign_type_means_that_nobody_watches(config: QueueConfig, client: redis.Redis) -> None:
    resting = reclaimer(config)
    assert resting.decide(time.monotonic() + 100.0, 10**9)
    client.rpush(Keys(config.queue_prefix).watched, "foreign")
    resting.perform()
    assert not resting.rests
