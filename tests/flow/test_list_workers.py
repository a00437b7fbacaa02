"""`list_workers`: who is registered, what each worker tells of itself and holds, for threads and event loops alike."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest
import redis

from queue_system import AccessDeniedError, QueueConfig, QueueManager, QueueWorker
from tests.kit.acl import AclServer
from tests.kit.configs import MakeConfig
from tests.kit.waiting import eventually
from tests.kit.workers import running

HERE = f"{socket.gethostname()}:{os.getpid()}"


async def test_a_worker_is_listed_with_its_queues_its_slots_and_what_it_holds_until_it_stops(
    make_config: MakeConfig,
) -> None:
    config = make_config(lease_seconds=0.4)
    queue = QueueManager(config)
    assert queue.list_workers() == await queue.alist_workers() == []
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(_: Any) -> None:
        begun.set()
        await may_end.wait()

    await queue.aenqueue({}, slow)
    async with running(QueueWorker(config, max_workers=3, queues=["slow", *(f"q{n}" for n in range(11))])):
        await begun.wait()
        await eventually(lambda: queue.list_workers()[0].slots, "a beat has told of it")
        (early,) = await queue.alist_workers()
        await eventually(lambda: queue.list_workers()[0].heartbeat > early.heartbeat, "it beats")
        (late,) = queue.list_workers()
        may_end.set()
    assert (late.worker_id, late.worker, late.dead) == (early.worker_id, HERE, False)
    assert (late.slots, late.abandoned, late.holds, late.lease_seconds) == (3, 0, 1, 0.4)
    assert (late.queues, late.more_queues) == (["slow", *(f"q{n}" for n in range(9))], 2)
    assert late.serves.endswith("q8, and 2 more")
    assert queue.list_workers() == []


def test_what_nobody_tells_is_none_and_what_foreign_programs_write_is_not_believed(
    config: QueueConfig, queue: QueueManager, client: redis.Redis
) -> None:
    entries: Any = {
        "old": "7:15000", "b@host:2": "8:15000", "dead:a@host:1": "9:15000", "odd": "x", "b@host:1": f"{'9' * 30}:-5",
        "all@host:3": "1:15000",
    }  # fmt: skip
    client.hset(config.keys.workers, mapping=entries)
    told: Any = {"b@host:2": '{"queues": 5}', "b@host:1": "[" * 5000, "all@host:3": '{"slots": 2}'}
    client.hset(f"{config.keys.prefix}incarnations", mapping=told)
    listed = queue.list_workers()
    assert [(each.worker_id, each.worker, each.heartbeat, each.lease_seconds, each.dead) for each in listed] == [
        ("odd", "odd", 0, None, False),
        ("old", "old", 7, 15.0, False),
        ("b@host:1", "host:1", 0, None, False),
        ("b@host:2", "host:2", 8, 15.0, False),
        ("all@host:3", "host:3", 1, 15.0, False),
        ("a@host:1", "host:1", 9, 15.0, True),
    ]
    (known,) = [each for each in listed if each.worker_id == "all@host:3"]
    assert (known.queues, known.slots, known.serves) == ([], 2, "all queues")
    assert {(each.queues, each.slots, each.serves) for each in listed if each != known} == {(None, None, "")}


def test_of_a_large_fleet_every_worker_is_listed_and_two_hundred_are_asked_for_details(
    config: QueueConfig, queue: QueueManager, client: redis.Redis
) -> None:
    entries: Any = {f"w{n:03}": "1:15000" for n in range(203)}
    client.hset(config.keys.workers, mapping=entries)
    listed = queue.list_workers()
    assert [each.worker_id for each in listed] == sorted(entries)
    assert [each.holds for each in listed] == [0] * 200 + [None] * 3


def test_a_key_of_a_foreign_type_hides_what_lies_behind_it_only(
    config: QueueConfig, queue: QueueManager, client: redis.Redis
) -> None:
    client.hset(config.keys.workers, "w", "1:15000")
    client.set(config.keys.inflight("w"), "a string")
    client.set(f"{config.keys.prefix}incarnations", "a string")
    (found,) = queue.list_workers()
    assert (found.heartbeat, found.queues, found.holds) == (1, None, None)


async def test_a_viewer_may_list_the_workers_and_who_may_not_is_told_so(prefix: str, make_config: MakeConfig) -> None:
    with AclServer(prefix) as guarded:
        viewer, enqueuer = (
            QueueManager(make_config(redis_url=guarded.url_of(role))) for role in ("viewer", "enqueuer")
        )  # fmt: skip
        async with running(QueueWorker(make_config(redis_url=guarded.url), queues=["mails"])):
            await eventually(lambda: [each for each in viewer.list_workers() if each.queues], "a beat has told of it")
            (found,) = await viewer.alist_workers()
            assert (found.worker, found.queues, found.slots) == (HERE, ["mails"], 5)
            with pytest.raises(AccessDeniedError):
                enqueuer.list_workers()
            with pytest.raises(AccessDeniedError):
                await enqueuer.alist_workers()
