"""Figures that are read when a scrape comes: the fleet's from Redis, the workers' from their health. Never counts."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from queue_system.monitoring.fleet import FleetFigures, rests_of
from queue_system.monitoring.health import WorkerHealth


class FleetCollector(Collector):
    """The fleet's figures, as `ask` returns them; without an answer, only that there is none."""

    def __init__(self, ask: Callable[[], FleetFigures]) -> None:
        self._ask = ask

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand, so that registering it in prometheus-client's registry asks nothing."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Ask, and yield the figures."""
        up = GaugeMetricFamily("queue_system_fleet_up", "Whether the server told the fleet's figures.")
        try:
            figures = self._ask()
        except Exception:  # noqa: BLE001 - a scrape shows what it can; the probe of readiness tells why
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *_queues(figures), *_totals(figures)]


def _queues(figures: FleetFigures) -> Iterable[Metric]:
    labels = ["queue", "priority"]
    depth = GaugeMetricFamily("queue_system_queue_depth", "Operations that are ready.", labels=labels)
    age = GaugeMetricFamily(
        "queue_system_queue_oldest_age_seconds", "How long the next operation has been ready.", labels=labels
    )
    for queue in figures.queues:
        depth.add_metric([queue.name, queue.priority], queue.depth)
        if queue.oldest_age_s is not None or not queue.depth:
            age.add_metric([queue.name, queue.priority], queue.oldest_age_s or 0.0)
    resting = GaugeMetricFamily(
        "queue_system_queue_resting_workers",
        "Workers that leave the queue alone because they cannot resolve what it holds.",
        labels=["queue"],
    )
    for name, rests in rests_of(figures).items():
        resting.add_metric([name], len(rests))
    return depth, age, resting


def _totals(figures: FleetFigures) -> Iterable[Metric]:
    letters = GaugeMetricFamily("queue_system_dead_letters", "Dead letters that are kept.", labels=["source"])
    for source, length in figures.dead_letters.items():
        letters.add_metric([source], length)
    events = CounterMetricFamily("queue_system_fleet_events", "What the scripts counted, fleet-wide.", labels=["event"])
    for event, count in figures.counters.items():
        events.add_metric([event], count)
    return [
        letters,
        events,
        GaugeMetricFamily("queue_system_delayed", "Operations that are due later.", value=figures.delayed),
        GaugeMetricFamily("queue_system_running", "Operations that workers hold.", value=figures.running),
        GaugeMetricFamily("queue_system_workers", "Workers that are registered.", value=figures.workers),
        GaugeMetricFamily(
            "queue_system_queues_complete", "Whether every queue is among these figures.", value=int(figures.complete)
        ),
    ]


class HealthCollector(Collector):
    """The state of the workers that `health` returns, added up or the worst of them."""

    def __init__(self, health: Callable[[], Sequence[WorkerHealth]]) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        """Look, and yield the figures."""
        workers = self._health()
        slots = GaugeMetricFamily("queue_system_worker_slots", "Slots of the workers here.", labels=["state"])
        busy = sum(worker.busy for worker in workers)
        slots.add_metric(["busy"], busy)
        slots.add_metric(["idle"], sum(worker.slots for worker in workers) - busy)
        lag = GaugeMetricFamily("queue_system_event_loop_lag_seconds", "How late the latest event loop here is.")
        lag.add_metric([], max((worker.loop_lag_s for worker in workers), default=0.0))
        consuming = GaugeMetricFamily("queue_system_workers_consuming", "Workers here that start operations.")
        consuming.add_metric([], sum(worker.consuming for worker in workers))
        states = ["circuit", "state"]
        circuits = GaugeMetricFamily(
            "queue_system_circuit_state", "Processes here by circuit and state.", labels=states
        )
        counted = Counter(found for worker in workers for found in worker.circuits.items())
        for circuit in sorted({circuit for circuit, _ in counted}):
            for state in ("closed", "half_open", "open"):
                circuits.add_metric([circuit, state], counted[circuit, state])
        build = InfoMetricFamily("queue_system_build", "What runs here.")
        build.add_metric([], {"version": _version(), "python": platform.python_version()})
        return [slots, lag, consuming, circuits, build]


def _version() -> str:
    try:
        return metadata.version("redis-queue-system")
    except metadata.PackageNotFoundError:  # it is run from its source
        return "unknown"
