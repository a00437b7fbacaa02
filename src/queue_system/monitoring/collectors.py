"""Stats that are read when a scrape comes: the fleet's from Redis, the workers' from their health."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from queue_system import __version__
from queue_system.inspection.fleet import FleetStats, rests_of
from queue_system.monitoring.health import WorkerHealth
from queue_system.monitoring.labels import NOWHERE, Place, circuits_shown, events_of

_STATES: Final = ("closed", "half_open", "open")
_PLACE: Final = list(Place._fields)


class FleetCollector(Collector):
    """The fleet's stats, as `ask` returns them; without an answer, only that there is none."""

    def __init__(self, ask: Callable[[], FleetStats], place: Place = NOWHERE) -> None:
        self._ask = ask
        self._place = place

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand, so that registering it in prometheus-client's registry asks nothing."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Ask, and yield the stats."""
        up = _gauge("fleet_up", "Whether the server answered for the fleet's stats.")
        try:
            stats = self._ask()
        except Exception:  # noqa: BLE001 - a scrape shows what it can; the readiness probe says why
            up.add_metric(self._place, 0)
            return [up]
        up.add_metric(self._place, 1)
        return [up, *self._queues(stats), *self._sets(stats), *self._totals(stats)]

    def _queues(self, stats: FleetStats) -> Iterable[Metric]:
        depth = _gauge("queue_depth", "Operations that are ready.", "queue", "priority")
        age = _gauge("queue_oldest_age_seconds", "How long the next operation has been ready.", "queue", "priority")
        for queue in stats.queues:
            labels = [*self._place, queue.name, queue.priority]
            depth.add_metric(labels, queue.depth)
            if queue.oldest_age_s is not None or not queue.depth:
                age.add_metric(labels, queue.oldest_age_s or 0.0)
        resting = _gauge(
            "queue_resting_workers",
            "Workers that leave the queue alone because they cannot resolve or run what it holds.",
            "queue",
        )
        rests = rests_of(stats)
        for name in sorted({queue.name for queue in stats.queues}):
            resting.add_metric([*self._place, name], len(rests.get(name, ())))
        return depth, age, resting

    def _sets(self, stats: FleetStats) -> Iterable[Metric]:
        dead_letters = _gauge("dead_letters", "Dead letters that are kept.", "source")
        for source, length in stats.dead_letters.items():
            dead_letters.add_metric([*self._place, source], length)
        events = CounterMetricFamily(
            "queue_system_fleet_events", "What the scripts counted, fleet-wide.", labels=[*_PLACE, "event"]
        )
        for event, count in events_of(stats.counters).items():
            events.add_metric([*self._place, event], count)
        return dead_letters, events

    def _totals(self, stats: FleetStats) -> Iterator[Metric]:
        for name, help_text, value in (
            ("delayed", "Operations that are due later.", stats.delayed),
            ("running", "Operations that workers hold.", stats.running),
            (
                "workers",
                "Workers that are registered, also killed ones whose work nobody has taken.",
                stats.workers,
            ),
            ("workers_alive", "Workers whose heartbeat goes on.", stats.alive),
            ("queues_complete", "Whether every queue is among these stats.", int(stats.complete)),
        ):
            if value is not None:
                gauge = _gauge(name, help_text)
                gauge.add_metric(self._place, value)
                yield gauge


class HealthCollector(Collector):
    """The state of the workers that `health` returns, added up or the worst of them."""

    def __init__(self, health: Callable[[], Sequence[WorkerHealth]], place: Place = NOWHERE) -> None:
        self._health = health
        self._place = place

    def collect(self) -> Iterable[Metric]:
        """Look, and yield the stats."""
        workers = self._health()
        slots = _gauge("worker_slots", "Slots of the workers here.", "state")
        busy = sum(worker.busy for worker in workers)
        slots.add_metric([*self._place, "busy"], busy)
        slots.add_metric([*self._place, "idle"], sum(worker.slots for worker in workers) - busy)
        lag = _gauge("event_loop_lag_seconds", "How late the latest event loop here is.")
        lag.add_metric(self._place, max((worker.loop_lag_s for worker in workers if worker.running), default=0.0))
        consuming = _gauge("workers_consuming", "Workers here that start operations.")
        consuming.add_metric(self._place, sum(worker.consuming for worker in workers))
        build = InfoMetricFamily("queue_system_build", "What runs here.")
        build.add_metric([], {"version": __version__, "python": platform.python_version()})
        abandoned = _gauge("abandoned", "Threads and tasks of operations given up at their limit that still run.")
        abandoned.add_metric(self._place, sum(worker.abandoned for worker in workers))
        return [slots, lag, consuming, abandoned, self._circuits(workers), build]

    def _circuits(self, workers: Sequence[WorkerHealth]) -> Metric:
        circuits = _gauge("circuit_state", "Processes here by circuit and state.", "circuit", "state")
        found = Counter(each for worker in workers for each in worker.circuits.items())
        counts: Counter[tuple[str, str]] = Counter()
        for circuit, label in circuits_shown({circuit for circuit, _ in found}):
            for state in _STATES:
                counts[label, state] += found[circuit, state]
        for (label, state), count in counts.items():
            circuits.add_metric([*self._place, label, state], count)
        return circuits


def _gauge(name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"queue_system_{name}", help_text, labels=[*_PLACE, *labels])
