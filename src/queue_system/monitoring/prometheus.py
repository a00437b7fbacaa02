"""Counts what workers settle in prometheus-client's instruments, for one process or many."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, assert_never

from queue_system.config import QueueConfig
from queue_system.errors import InvalidInputError
from queue_system.execution.settlement import Settlement
from queue_system.model.keys import split_queue
from queue_system.model.states import OperationState, Verb
from queue_system.monitoring.labels import Place, place_of

try:
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        REGISTRY,
        CollectorRegistry,
        Counter,
        Histogram,
        generate_latest,
        values,
    )
    from prometheus_client.metrics_core import Metric
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError("metrics need prometheus-client: pip install 'redis-queue-system[prometheus]'") from error

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_IN_MEMORY: Final = "/dev/shm"  # noqa: S108 - a fresh folder of our own there
_DURATIONS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_WAITS: Final = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_MOST_QUEUES: Final = 200
_OTHER: Final = "other"
_files = threading.Lock()
Kind = TypeVar("Kind", Counter, Histogram)


@dataclass(slots=True)
class _Turn:
    """What one turn brought for one queue."""

    verbs: list[Verb]
    durations_s: list[float]
    waits_ms: list[float]


class _Instruments:
    """The instruments of this process. They stand in prometheus-client's own registry, as an application's do."""

    def __init__(self) -> None:
        if os.environ.get(_FOLDER) and not values.ValueClass._multiprocess:  # noqa: SLF001 - imported before the folder was
            values.ValueClass = values.get_value_class()
        self.operations = _once(Counter, "operations", "Executions by what became of them.", ["queue", "outcome"])
        self.duration = _once(
            Histogram, "operation_duration_seconds", "How long executions took.", ["queue"], buckets=_DURATIONS
        )
        self.wait = _once(
            Histogram,
            "operation_wait_seconds",
            "How long operations waited from when they were due until they were started.",
            ["queue"],
            buckets=_WAITS,
        )
        self.losses = _once(Counter, "lease_lost", "Deliveries that were taken over by another worker.", [])
        self._queues: dict[tuple[Place, bytes], _QueueInstruments] = {}

    def of(self, place: Place, queue: bytes) -> _QueueInstruments:
        """Return those of one queue of one fleet; beyond the first 200, all of a fleet share one."""
        try:
            return self._queues[place, queue]
        except KeyError:
            parts = split_queue(queue)
            name = _OTHER if parts is None or len(self._queues) >= _MOST_QUEUES else parts[1]
            instruments = _QueueInstruments(self, place, name)
            if name != _OTHER:
                self._queues[place, queue] = instruments
            return instruments


class Counting:
    """Counts what workers of one configuration settle, once a turn."""

    counts_for_prometheus: Final = True

    def __init__(self, instruments: _Instruments, place: Place) -> None:
        self._instruments = instruments
        self._place = place
        self._losses = instruments.losses.labels(*place)  # at 0 from the beginning, so that an alert sees the first

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Count a turn's settlements, but no callbacks or releases. One plain loop: it runs for every operation."""
        turns: dict[bytes, _Turn] = {}
        queue: bytes | None = None
        turn = _Turn([], [], [])
        release = Verb.RELEASE
        reject = Verb.REJECT
        for settlement in settlements:
            delivery = settlement.delivery
            verb = settlement.verb
            timing = settlement.timing
            operation = delivery.operation
            if operation.phase or verb is release:
                continue
            if delivery.queue != queue:
                queue = delivery.queue
                turn = turns.setdefault(queue, _Turn([], [], []))
            turn.verbs.append(verb)
            if verb is not reject:  # which was not executed
                turn.durations_s.append(timing.duration_s)
            since = operation.due or operation.timestamp
            if since > 0 and not operation.crashes:  # after a crash it has waited before and run since
                turn.waits_ms.append(timing.started_ms - since * 1000)
        for queue, turn in turns.items():
            self._instruments.of(self._place, queue).take(turn)

    def lease_lost(self, operations: int) -> None:
        """Count deliveries that were taken over."""
        self._losses.inc(operations)


def _outcome(verb: Verb) -> str:
    """Return how an execution with this verdict is counted; empty where there was none."""
    match verb:
        case Verb.COMPLETE:
            return OperationState.SUCCEEDED.public
        case Verb.FAIL:
            return OperationState.FAILED.public
        case Verb.REJECT:
            return OperationState.REJECTED.public
        case Verb.RETRY:
            return "retried"
        case Verb.RELEASE | Verb.RUNNING:
            return ""
        case other:
            assert_never(other)


class _QueueInstruments:
    """Those of one queue's name."""

    __slots__ = ("_duration", "_operations", "_wait")

    def __init__(self, instruments: _Instruments, place: Place, name: str) -> None:
        operations = instruments.operations
        self._operations = {
            verb: operations.labels(*place, name, outcome) for verb in Verb if (outcome := _outcome(verb))
        }
        self._duration = instruments.duration.labels(*place, name)
        self._wait = instruments.wait.labels(*place, name)

    def take(self, turn: _Turn) -> None:
        """Count what one turn brought for this queue."""
        for verb in self._operations.keys() & set(turn.verbs):
            self._operations[verb].inc(turn.verbs.count(verb))
        _feed(self._duration, turn.durations_s)
        _feed(self._wait, turn.waits_ms, 1000.0)


def _feed(histogram: Histogram, samples: list[float], units: float = 1.0) -> None:
    """Take in many samples, in units of which a second has `units`, with one update per bucket.

    The public API takes one sample at a time, which would cost more than all else that is done for an operation here.
    """
    if not samples:
        return
    least = min(samples)
    if least < 0:  # a producer's clock is ahead
        samples = [max(0.0, sample) for sample in samples]
        least = 0.0
    bounds = histogram._upper_bounds  # noqa: SLF001 - see above
    buckets = histogram._buckets  # noqa: SLF001
    histogram._sum.inc(sum(samples) / units)  # noqa: SLF001
    first = bisect_left(bounds, least / units)
    if max(samples) / units <= bounds[first]:  # the usual case: one turn's samples are alike
        buckets[first].inc(len(samples))
        return
    samples.sort()
    start = 0
    while start < len(samples):  # from one bucket that has samples to the next
        i = bisect_left(bounds, samples[start] / units)
        end = max(start + 1, bisect_right(samples, bounds[i] * units, start))  # a product may be rounded
        buckets[i].inc(end - start)
        start = end


class _Collected(Collector):
    """What another collector has collected."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _once(kind: type[Kind], name: str, help_text: str, labels: list[str], **settings: Any) -> Kind:
    """Make an instrument, or return the one that a module of ours made which was imported before this one."""
    name = f"queue_system_{name}"
    labels = [*Place._fields, *labels]
    known: Any = REGISTRY._names_to_collectors.get(name)  # noqa: SLF001 - it has no other way to ask
    if isinstance(known, kind) and list(known._labelnames) == labels:  # noqa: SLF001
        return known
    if known is not None:
        REGISTRY.unregister(known)
    return kind(name, help_text, labels, **settings)


@functools.cache
def _instruments() -> _Instruments:
    return _Instruments()


def enable(config: QueueConfig) -> None:
    """Count what the workers of a configuration settle from now on. A second call does nothing."""
    if not any(getattr(observer, "counts_for_prometheus", False) for observer in config.observers):
        config.observers.append(Counting(_instruments(), place_of(config)))


def exposition(collectors: Iterable[Collector]) -> bytes:
    """Return all metrics of this process, or of all processes that share the folder, and of further collectors."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(_Collected(list(collector.collect())))  # which may take a while: not under the lock
    with _files:
        if os.environ.get(_FOLDER):
            MultiProcessCollector(registry)
        else:
            registry.register(REGISTRY)
        return generate_latest(registry)


def prepare_multiprocess() -> Path:
    """Choose and empty the folder in which this process's children count, for them to find in their environment.

    Call it in the parent before any child starts. PROMETHEUS_MULTIPROC_DIR names the folder; else it is a fresh one,
    in memory where no folder for temporary files can be written.

    Raises:
        InvalidInputError: none can be written.
    """
    given = os.environ.get(_FOLDER)
    if given:
        folder = Path(given)
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.db"):
            left.unlink(missing_ok=True)
        return folder
    folder = _fresh_folder()
    os.environ[_FOLDER] = str(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _fresh_folder() -> Path:
    problem = None
    for parent in (None, _IN_MEMORY):
        try:
            return Path(tempfile.mkdtemp(prefix="queue-system-metrics-", dir=parent))
        except OSError as error:  # a container's root may be read-only
            problem = error
    raise InvalidInputError(
        "http",
        f"the processes' counts need a folder that can be written ({problem}); name one with {_FOLDER} or TMPDIR",
    )


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child leaves what its parent uses
        shutil.rmtree(folder, ignore_errors=True)


def mark_dead(pid: int) -> None:
    """Note that a child has ended: what it counted stays counted, its files go, so that they do not add up."""
    folder = Path(os.environ[_FOLDER])
    with _files:
        mark_process_dead(pid, str(folder))
        for kind in ("counter", "histogram", "summary"):
            ended = folder / f"{kind}_{pid}.db"
            if ended.exists():
                _add(ended, folder / f"{kind}_ended.db")
                ended.unlink()


def _add(ended: Path, to: Path) -> None:
    total = MmapedDict(str(to))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(ended)):
            total.write_value(key, total.read_value(key)[0] + value, 0.0)
    finally:
        total.close()
