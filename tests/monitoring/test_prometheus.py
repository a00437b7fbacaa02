"""Prometheus's figures, read back with prometheus-client's own parser: of one process, of many, of the fleet."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry, Histogram

from queue_system import QueueManager, QueueWorker
from queue_system.model.states import Verb
from queue_system.monitoring import prometheus
from queue_system.monitoring.collectors import HealthCollector
from queue_system.monitoring.health import WorkerHealth, health_of
from queue_system.monitoring.labels import Place
from tests.kit.configs import MakeConfig
from tests.kit.foreign import push
from tests.kit.hostile_texts import CORPUS
from tests.kit.processes import environment
from tests.kit.servers import OwnServer
from tests.kit.source import ROOT
from tests.kit.waiting import eventually
from tests.kit.workers import running
from tests.monitoring.conftest import Busy
from tests.monitoring.support import Samples, of, parsed, settlement

PLACE = Place("redis://here:6379/0", "queue:")


def scrape(*collectors: Any) -> Samples:
    return parsed(prometheus.exposition(collectors).decode())


def test_a_busy_worker_s_operations_are_counted_by_queue_and_outcome(busy: Busy) -> None:
    def count(queue: str, outcome: str) -> float:
        return of(busy.scrape, "queue_system_operations_total", queue=queue, outcome=outcome)

    assert (count("mails", "succeeded"), count("mails", "failed")) == (20, 0)
    assert (count("explode", "failed"), count("explode", "retried")) == (len(CORPUS) + 1, 1)
    assert (count("hang", "failed"), count("to_be_found", "system_error")) == (1, 1)
    for name, expected in (("mails", 20), ("explode", len(CORPUS) + 2), ("hang", 1), ("to_be_found", 0)):
        assert of(busy.scrape, "queue_system_operation_duration_seconds_count", queue=name) == expected
    assert 0.05 <= of(busy.scrape, "queue_system_operation_duration_seconds_sum", queue="hang") < 10
    assert of(busy.scrape, "queue_system_operation_wait_seconds_count", queue="mails") == 20
    assert of(busy.scrape, "queue_system_lease_lost_total") == 0


def test_the_fleet_and_the_worker_are_shown_beside_them(busy: Busy) -> None:
    shown = busy.scrape
    assert of(shown, "queue_system_fleet_up") == of(shown, "queue_system_workers") == 1
    assert of(shown, "queue_system_queue_depth", queue="mails", priority="normal") == 0
    assert of(shown, "queue_system_queue_oldest_age_seconds", queue="mails", priority="normal") == 0
    assert of(shown, "queue_system_dead_letters", source="failures") == len(CORPUS) + 2
    assert of(shown, "queue_system_dead_letters", source="system_errors") == 1
    assert of(shown, "queue_system_fleet_events_total", event="processed") == 20
    assert of(shown, "queue_system_worker_slots", state="busy") == 0
    assert of(shown, "queue_system_worker_slots", state="idle") == 5
    assert of(shown, "queue_system_circuit_state", circuit="redis", state="closed") == 1
    assert of(shown, "queue_system_circuit_state", circuit="redis", state="open") == 0
    assert any(name == "queue_system_build_info" for name, _ in shown)


async def test_the_wait_is_counted_from_when_an_operation_was_due(
    make_config: MakeConfig, client: redis.Redis, prefix: str
) -> None:
    """Neither the delay of an enqueue nor what passed before a retry is a wait; here both took hours."""
    config, name, tries = make_config(), f"due-{prefix[:-1]}", []
    prometheus.enable(config)
    prometheus.enable(config)

    def flaky(entity: Any) -> None:
        tries.append(entity)
        if len(tries) == 1:
            raise ValueError("the first time")

    config.register_callback(flaky, "flaky", "shop")
    now = time.time()
    item = {"operation_id": "1", "processor": "flaky", "processor_module": "shop", "timestamp": now - 9000, "due": now,
            "max_attempts": 2, "delays": [0.05]}  # fmt: skip
    push(client, config, json.dumps(item), name=name)
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics()["processed"] == 1, "it succeeds at last")
    shown = scrape()
    assert of(shown, "queue_system_operation_wait_seconds_count", queue=name) == 2
    assert of(shown, "queue_system_operation_wait_seconds_sum", queue=name) < 3000
    assert of(shown, "queue_system_operations_total", queue=name, outcome="retried") == 1


async def test_nothing_is_counted_for_a_configuration_that_did_not_ask(make_config: MakeConfig, prefix: str) -> None:
    config, name = make_config(), f"off-{prefix[:-1]}"

    def work(entity: Any) -> None:
        pass

    QueueManager(config).enqueue({}, work, queue_name=name)
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics()["processed"] == 1, "it is done")
    assert name not in str(scrape())


async def test_a_lost_lease_is_counted(make_config: MakeConfig, server: OwnServer) -> None:
    config = make_config()
    prometheus.enable(config)
    lost = of(scrape(), "queue_system_lease_lost_total")
    worker = QueueWorker(config)

    async def work(entity: Any) -> None:
        with server.client() as client:
            client.hdel(config.keys.workers, health_of(worker).incarnation)

    QueueManager(config).enqueue({}, work)
    async with running(worker):
        await eventually(lambda: of(scrape(), "queue_system_lease_lost_total") > lost, "the loss is counted")


def test_many_samples_fed_at_once_count_as_if_observed_one_by_one() -> None:
    """It writes to what prometheus-client keeps private; this tells when a release changes that."""
    draw = random.Random(5)
    bounds = (0.001, 0.01, 0.1, 1, 10)
    samples = [draw.choice([*bounds, 10 ** draw.uniform(-4, 2)]) for _ in range(1000)]
    fed, observed = (Histogram("h", "h", buckets=bounds, registry=CollectorRegistry()) for _ in range(2))
    for sample in samples:
        observed.observe(sample)
    for start in range(0, 1000, 250):
        prometheus._feed(fed, [sample * 1000 for sample in samples[start : start + 250]], 1000.0)

    def shown(histogram: Histogram) -> list[tuple[Any, float]]:
        (family,) = histogram.collect()
        return [(s.labels, round(s.value, 6)) for s in family.samples if not s.name.endswith("_created")]

    assert shown(fed) == shown(observed)


def test_queues_beyond_what_a_process_tells_apart_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    instruments = prometheus._instruments()
    monkeypatch.setattr(prometheus, "_MOST_QUEUES", 0)
    for queue in (b"high:one-too-many", b"no queue of ours"):
        turn = prometheus._Turn([Verb.COMPLETE], [0.1], [])
        instruments.of(PLACE, queue).take(turn)
    shown = scrape()
    assert of(shown, "queue_system_operations_total", queue="other", outcome="succeeded") == 2
    assert "one-too-many" not in str(shown)


def test_what_is_handed_back_unstarted_is_not_counted() -> None:
    counting = prometheus.Counting(prometheus._instruments(), PLACE)
    counting.settled([settlement("high:handed-back", Verb.RELEASE)])
    assert "handed-back" not in str(scrape())


def test_what_came_from_no_queue_is_counted_too() -> None:
    """As an item does that a foreign client made due without a queue."""
    place = Place("redis://no-queue:6379/0", "q:")
    prometheus.Counting(prometheus._instruments(), place).settled([settlement("", Verb.REJECT)])
    labels = {**place._asdict(), "queue": "other", "outcome": "system_error"}
    assert of(scrape(), "queue_system_operations_total", **labels) == 1


def test_workers_of_a_process_are_added_up_and_the_latest_loop_is_shown() -> None:
    workers = [
        WorkerHealth(
            1,
            running=True,
            slots=5,
            busy=2,
            loop_lag_s=0.5,
            consuming=True,
            circuits={"redis": "open", "bank": "closed"},
        ),
        WorkerHealth(2, running=True, slots=5, busy=3, loop_lag_s=0.1, circuits={"redis": "open"}),
    ]
    shown = scrape(HealthCollector(lambda: workers))
    assert of(shown, "queue_system_worker_slots", state="busy") == 5
    assert of(shown, "queue_system_event_loop_lag_seconds") == 0.5
    assert of(shown, "queue_system_workers_consuming") == 1
    assert of(shown, "queue_system_circuit_state", circuit="redis", state="open") == 2
    assert of(shown, "queue_system_circuit_state", circuit="bank", state="closed") == 1


def test_processes_are_added_up_and_what_an_ended_one_counted_stays(
    server: OwnServer, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "counts"))
    folder = prometheus.prepare_multiprocess()
    (folder / "counter_1.db").write_bytes(b"of an earlier run")
    assert prometheus.prepare_multiprocess() == folder
    assert not list(folder.iterdir())

    def child() -> int:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.monitoring.multi_process", server.url, prefix],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert ended.returncode == 0, ended.stderr
        return int(ended.stdout)

    def counts() -> tuple[float, float]:
        shown = scrape()
        return (
            of(shown, "queue_system_operations_total", queue="shared", outcome="succeeded"),
            of(shown, "queue_system_operation_duration_seconds_count", queue="shared"),
        )

    first, second = child(), child()
    assert counts() == (20, 20)
    prometheus.mark_dead(first)
    assert counts() == (20, 20)
    prometheus.mark_dead(second)
    assert counts() == (20, 20)
    assert sorted(path.name for path in folder.iterdir()) == ["counter_ended.db", "histogram_ended.db"]


def test_without_a_folder_a_fresh_one_is_made_for_the_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    folder = prometheus.prepare_multiprocess()
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(folder)
    prometheus._remove(folder, os.getpid() + 1)
    assert folder.is_dir(), "a forked child leaves it alone"
    prometheus._remove(folder, os.getpid())
    assert not folder.exists()
