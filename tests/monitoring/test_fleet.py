"""The fleet's figures: depths and ages as they are in Redis, and a bounded wait for them."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker, ServerUnreachableError
from queue_system.inspection import fleet
from queue_system.inspection.fleet import QueueStats, read_fleet
from queue_system.monitoring import latest as answers
from queue_system.monitoring.collectors import FleetCollector
from queue_system.monitoring.latest import Latest
from tests.kit.configs import MakeConfig
from tests.kit.foreign import push
from tests.kit.servers import OwnServer
from tests.kit.waiting import eventually
from tests.kit.workers import running


def figures(config: QueueConfig) -> dict[str, QueueStats]:
    return {f"{queue.priority}:{queue.name}": queue for queue in read_fleet(config).queues}


def test_the_age_of_a_queue_is_that_of_the_item_which_is_served_next(
    make_config: MakeConfig, client: redis.Redis
) -> None:
    config, now = make_config(), time.time()
    push(client, config, json.dumps({"processor": "p", "timestamp": now - 100}), name="old")
    push(client, config, json.dumps({"processor": "p", "timestamp": now - 10}), name="old")
    push(client, config, json.dumps({"processor": "p", "timestamp": now - 5000, "due": now - 50}), name="was_delayed")
    push(client, config, json.dumps({"processor": "p"}), name="silent")
    push(client, config, b"no item at all", name="broken")
    push(client, config, json.dumps({"processor": "p", "timestamp": now + 1000}), name="ahead")
    QueueManager(config).enqueue({"timestamp": now - 9999, "blob": "x" * 100_000}, "shop.p", queue_name="large")
    found = figures(config)
    assert found["normal:old"].depth == 2
    assert 100 <= (found["normal:old"].oldest_age_s or 0) < 130
    assert 50 <= (found["normal:was_delayed"].oldest_age_s or 0) < 80
    assert found["normal:silent"].oldest_age_s is found["normal:broken"].oldest_age_s is None
    assert found["normal:ahead"].oldest_age_s == 0
    assert 0 <= (found["normal:large"].oldest_age_s or 0) < 30
    ages = {
        sample.labels["queue"]
        for metric in FleetCollector(lambda: read_fleet(config)).collect()
        for sample in metric.samples
        if sample.name == "queue_system_queue_oldest_age_seconds"
    }
    assert ages == {"old", "was_delayed", "ahead", "large"}, "an age that nothing tells is not shown"


async def test_a_retry_is_as_old_as_it_has_been_due(make_config: MakeConfig) -> None:
    """Its first attempt and its delay are no part of its wait."""
    config = make_config()

    def fail(entity: Any) -> None:
        raise ValueError("always")

    retries = QueueRetryConfig(max_attempts=2, delays=[3600])
    QueueManager(config).enqueue({}, fail, retry_config=retries)
    async with running(QueueWorker(config)):
        await eventually(lambda: read_fleet(config).delayed == 1, "the retry waits")
    (entry,), _ = config.transport.run(config.commands.delayed_page("0", 500))[::-1]
    item = json.loads(entry.split(b"\n", 2)[2])
    assert 3200 < item["due"] - time.time() < 4000


def test_a_delayed_operation_carries_when_it_is_due(make_config: MakeConfig) -> None:
    config = make_config()
    queue = QueueManager(config)
    queue.enqueue({}, "shop.work", delay=60)
    queue.enqueue_batch([{}], "shop.work", delay=60)
    _, entries = config.transport.run(config.commands.delayed_page("0", 500))
    for entry in entries:
        item = json.loads(entry.split(b"\n", 2)[2])
        assert 59 < item["due"] - item["timestamp"] < 61


def test_no_more_queues_are_read_than_one_scrape_bears(
    make_config: MakeConfig, server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    with server.client() as client:
        client.sadd(config.get_registry_key(), *(config.get_queue_key(f"q{n}") for n in range(1500)))
    assert read_fleet(config).complete
    monkeypatch.setattr(fleet, "MOST_QUEUES", 400)
    some = read_fleet(config)
    assert not some.complete
    assert 400 <= len(some.queues) < 1500


def test_who_asks_while_an_answer_is_fresh_or_under_way_gets_that_answer() -> None:
    asked: list[int] = []
    go_on = threading.Event()

    def ask() -> int:
        asked.append(len(asked))
        assert go_on.wait(10)
        return len(asked)

    latest, got = Latest(ask), []
    threads = [threading.Thread(target=lambda: got.append(latest.get())) for _ in range(5)]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert (got, asked, latest.get()) == ([1] * 5, [0], 1)


def test_who_waits_too_long_is_told_so_and_the_next_question_waits_for_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "PATIENCE_S", 0.05)
    go_on, asked = threading.Event(), []

    def ask() -> int:
        asked.append(1)
        assert go_on.wait(10)
        return 7

    latest = Latest(ask)
    for _ in range(3):
        with pytest.raises(ServerUnreachableError):
            latest.get()
    monkeypatch.setattr(answers, "PATIENCE_S", 10.0)
    go_on.set()
    assert (latest.get(), asked) == (7, [1])


def test_a_thread_that_cannot_start_keeps_nobody_from_asking_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    latest = Latest(lambda: 7)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            latest.get()
    assert latest.get() == 7


def test_an_error_is_told_to_everybody_and_forgotten_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Any] = [ValueError("first"), 7]

    def ask() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    latest = Latest(ask)
    for _ in range(2):
        with pytest.raises(ValueError, match="first"):
            latest.get()
    monkeypatch.setattr(answers, "FRESH_S", 0.0)
    assert latest.get() == 7
