"""A worker that does not know a processor leaves its queue to those that do, and burns no backlog."""

from __future__ import annotations

import asyncio

import redis
from prometheus_client import CollectorRegistry, generate_latest

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.execution.rests import FEW
from queue_system.inspection.fleet import read_fleet
from queue_system.monitoring.collectors import FleetCollector
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, record_of
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.waiting import eventually
from tests.kit.workers import running

BACKLOG = 400
FULL = (
    "system_errors is full: what cannot be resolved stays in its queue; retry or drop dead letters,"
    " or raise max_dead_letters"
)
RESTS = "the queue is left alone: this worker cannot resolve what it holds; other workers go on with it"


def counted(queue: QueueManager, name: str) -> int:
    count: int = queue.get_queue_status()["metrics"].get(name, 0)
    return count


def rejected(queue: QueueManager) -> int:
    count: int = queue.get_queue_status()[queue.config.system_errors_queue]
    return count


async def test_a_single_worker_rejects_a_few_and_leaves_the_backlog_where_it_is(
    queue: QueueManager, config: QueueConfig, inbox: Inbox, log: LineLogger
) -> None:
    """It says so once, in its log, in its metrics and in the status; other queues are served meanwhile."""
    queue.enqueue_batch([{"n": n} for n in range(BACKLOG)], "shop.lacking.charge")
    async with running(QueueWorker(config)):
        await eventually(lambda: counted(queue, "queue_rests") >= 2, "the queue rests for the second time", 20)
        status = queue.get_queue_status()
        queue.enqueue({"n": "other"}, inbox.put)
        assert await inbox.next() == {"n": "other"}
    (note,) = status["resting"]
    assert note["queue"] == "charge"
    assert ":" in note["worker"]
    assert "shop.lacking" in note["reason"]
    assert note["until"] > status["status_time"] - 10
    assert FEW <= rejected(queue) <= FEW + 1
    after = queue.get_queue_status()
    assert after[config.get_queue_key("charge")] + after[config.keys.delayed] == BACKLOG - rejected(queue)
    assert config.get_metrics()["queue_rests"] >= 2
    assert [rest.queue for rest in read_fleet(config).resting] == ["charge"]
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: read_fleet(config)))
    exposed = generate_latest(registry).decode()
    assert 'queue_system_queue_resting_workers{prefix="",queue="charge",server=""} 1.0' in exposed
    (line,) = log.of(RESTS)
    assert (line["queue"], line["rest_s"]) == ("charge", 1.0)


async def test_workers_that_know_the_processor_go_on_beside_those_that_do_not(
    queue: QueueManager, config: QueueConfig, make_config: MakeConfig
) -> None:
    """As in a rolling deploy: nothing is lost, a few operations of each worker that lacks it are dead letters."""
    done: set[int] = set()
    new = make_config()
    new.register_callback(lambda entity: done.add(entity["n"]), "charge", "shop.lacking")
    queue.enqueue_batch([{"n": n} for n in range(BACKLOG)], "shop.lacking.charge")
    old = [QueueWorker(make_config()), QueueWorker(make_config(), queues=["charge"])]
    async with running(old[0]), running(old[1]):
        await eventually(lambda: counted(queue, "queue_rests") >= 2, "both leave the queue alone", 20)
        async with running(QueueWorker(new)):
            await eventually(lambda: len(done) + rejected(queue) == BACKLOG, "all the others are done", 30)
    assert rejected(queue) <= 2 * (FEW + 1)
    assert queue.get_queue_status()["total_items"] == 0


async def test_a_worker_of_that_queue_only_takes_up_what_it_has_learnt_to_resolve(
    queue: QueueManager, config: QueueConfig, inbox: Inbox, log: LineLogger
) -> None:
    queue.enqueue_batch([{"n": n} for n in range(20)], "shop.lacking.charge")
    async with running(QueueWorker(config, queues=["charge"])):
        await eventually(lambda: counted(queue, "queue_rests") == 1, "the queue rests", 20)
        config.register_callback(inbox.put, "charge", "shop.lacking")
        await inbox.take(20 - rejected(queue))
        await eventually(lambda: "resting" not in queue.get_queue_status(), "the status tells of no rest", 10)
    assert log.of("the queue is served again") == [{"queue": "charge"}]


async def test_operations_that_lack_their_processor_wait_aside_in_a_queue_that_others_share(
    queue: QueueManager, config: QueueConfig, inbox: Inbox
) -> None:
    """Those of other processors in between are run, and the rest of the unknown ones spends no attempt."""
    for n in range(40):
        queue.enqueue({"n": n}, "shop.lacking.charge", queue_name="shared", operation_id=f"unknown-{n}")
        queue.enqueue({"n": n}, inbox.put, queue_name="shared")
    async with running(QueueWorker(config)):
        assert [entity["n"] for entity in await inbox.take(40)] == list(range(40))
    status = queue.get_queue_status()
    assert FEW <= rejected(queue) <= FEW + 1
    assert status[config.get_queue_key("shared")] + status[config.keys.delayed] == 40 - rejected(queue)
    record = record_of(queue, "unknown-39")
    assert (record.status, record.attempts) == ("queued", 0)


async def test_full_system_errors_push_nothing_out_for_what_another_worker_may_know(
    queue: QueueManager, make_config: MakeConfig, client: redis.Redis
) -> None:
    """What stays in its queue is told as such, in one line, and not as rejected."""
    config = make_config(max_dead_letters=2)
    log: LineLogger = config.logger
    queue.enqueue_batch([{"n": n} for n in range(10)], "shop.lacking.charge")
    async with running(QueueWorker(config)):
        await eventually(lambda: bool(log.of(FULL)), "the log says that the list is full", 20)
        await eventually(lambda: "is full" in str(queue.get_queue_status().get("resting")), "the status, too", 20)
    (told,) = log.of(FULL)
    assert (told["queue"], told["processor"]) == ("charge", "shop.lacking.charge")
    assert len(log.of("operation rejected")) == config.get_metrics()["errors"] == 2
    (rest,) = queue.get_queue_status()["resting"]
    assert rest["reason"].startswith("system_errors is full; shop.lacking.charge: ")
    kept = await asyncio.to_thread(documents, client, config.system_errors_queue)
    assert [letter["entity"]["n"] for letter in kept] == [1, 0]
    status = queue.get_queue_status()
    assert "dead_letters_dropped" not in status["metrics"]
    assert status["metrics"]["system_errors"] == 2
    assert status[config.get_queue_key("charge")] + status[config.keys.delayed] == 8
