"""What this process has counted so far, and a log line for each notable change. Never talks to Redis."""

from __future__ import annotations

import math
import threading
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Final

from queue_system.forking import renew_in_children
from queue_system.metrics.logs import StructuredLogger
from queue_system.metrics.thresholds import Kind, kind_of, logs_every_change, next_threshold, quiet_range
from queue_system.validation import NOT_EMPTY, check_text, check_whole, refused, shown, type_name

STANDARD_METRICS: Final = (
    "enqueued",
    "processed",
    "failed",
    "retried",
    "timeouts",
    "system_errors",
    "errors",
    "avg_process_time",
)
_MESSAGE: Final = "Queue metric update"
_LARGEST: Final = 2**63 - 1
_NOTHING_QUIET: Final = (math.inf, -math.inf)


class MetricsRecorder:
    """The metrics of this process: counters, means (`avg_*`) and gauges (`*_rate`, and all that is not a number).

    A metric's name and first value fix its kind. Thread-safe; lines are written outside the lock, so a slow logger
    delays its own caller only. A wrong value raises InvalidInputError and changes nothing.
    """

    def __init__(self, log: StructuredLogger) -> None:
        self._log = log
        self._lock = threading.RLock()  # a signal handler may count, too
        self._metrics: dict[str, _Metric] = {name: _new_metric(name, 0) for name in STANDARD_METRICS}
        self._held: set[str] = set()
        renew_in_children(self)

    def renew(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def update(self, metric_name: str, value: Any = 1, force_log: bool = False) -> None:  # noqa: FBT001, FBT002 - specified
        """Add `value` to a counter, take it as one sample of a mean, or set a gauge to it.

        Writes a log line if the change is notable, or in any case with `force_log`.
        """
        value = _checked_value(metric_name, value)
        with self._lock:
            metric = self._metrics.get(metric_name) or self._create(metric_name, value)
            if not (metric.apply(value) or force_log):
                return
            line = metric.take_line()
        self._log.info(_MESSAGE, **line)

    def add_many(self, metric_name: str, n: int) -> None:
        """Add `n` to a counter; writes one log line if that passes a threshold."""
        if type(n) is not int or not 0 <= n <= _LARGEST:  # the call would cost more than the test
            n = _check_count("n", n)
        with self._lock:
            counter = self._metrics.get(metric_name)
            if type(counter) is not _Counter:
                counter = self._counter(metric_name)
            if not counter.apply(n):
                return
            line = counter.take_line()
        self._log.info(_MESSAGE, **line)

    def add_samples(self, metric_name: str, total: float, count: int) -> None:
        """Take `count` samples that sum up to `total` into the mean `metric_name`; no samples change nothing."""
        count = _check_count("count", count)
        total = _checked_number("total", _checked_value("total", total))
        if not count:
            return
        with self._lock:
            metric = self._metrics.get(metric_name) or self._create(metric_name, total)
            if not isinstance(metric, _Mean):
                raise refused(metric_name, "the name of a mean, which begins with avg_", "that of another metric")
            if not metric.add(total, count):
                return
            line = metric.take_line()
        self._log.info(_MESSAGE, **line)

    def hold(self, metric_name: str, n: int = 1) -> None:
        """Add `n` to a counter without a line; it is written with a later update of the same metric, or by `flush`."""
        n = _check_count("n", n)
        with self._lock:
            self._counter(metric_name).apply(n)
            self._held.add(metric_name)

    def flush(self) -> None:
        """Write the totals that `hold` holds back, one line each."""
        with self._lock:
            held = [metric for name in sorted(self._held) if (metric := self._metrics[name]).value != metric.logged]
            lines = [metric.take_line() for metric in held]
        for line in lines:
            self._log.info(_MESSAGE, **line)

    def update_success_rate(self) -> None:
        """Set the gauge `success_rate` to what `snapshot` computes, once anything has succeeded or failed."""
        with self._lock:
            processed = self._metrics["processed"].value
            settled = processed + self._metrics["failed"].value
            metric = self._metrics.get("success_rate") or self._create("success_rate", 100.0)
            if not settled or not metric.apply(round(100 * processed / settled, 3)):
                return
            line = metric.take_line()
        self._log.info(_MESSAGE, **line)

    def log_batch(self, operation: str, count: int, duration_ms: float) -> None:
        """Write the line that every batch gets: how many operations, how long it took, how many a second."""
        per_second = count * 1000 / max(duration_ms, 0.001)
        self._log.info(
            _MESSAGE,
            metric_name=f"batch_{operation}",
            metric_value=count,
            duration_ms=round(duration_ms, 3),
            per_second=round(per_second, 1),
        )

    def snapshot(self) -> dict[str, Any]:
        """Return every metric's value, and `success_rate`: 100 · processed / (processed + failed), 0.0 when empty."""
        with self._lock:
            values = {name: metric.value for name, metric in self._metrics.items()}
        settled = values["processed"] + values["failed"]
        values["success_rate"] = 100 * values["processed"] / settled if settled else 0.0
        return values

    def _create(self, metric_name: Any, value: Any) -> _Metric:
        check_text("metric_name", metric_name, "text that is not empty", NOT_EMPTY)
        metric = _new_metric(metric_name, value)
        metric.check(value)
        self._metrics[metric_name] = metric
        return metric

    def _counter(self, metric_name: str) -> _Counter:
        metric = self._metrics.get(metric_name) or self._create(metric_name, 0)
        if not isinstance(metric, _Counter):
            way_out = "use update for a mean or a gauge"
            raise refused(metric_name, "the name of a counter", "that of another metric", way_out)
        return metric


class _Metric:
    """One metric: its value, the value last logged, and when the next line is due."""

    __slots__ = ("_every_change", "_name", "logged", "value")

    def __init__(self, name: str, value: Any) -> None:
        self._name = name
        self._every_change = logs_every_change(name)
        self.value = value
        self.logged = value

    def check(self, value: Any) -> None:
        """Raise InvalidInputError if this metric cannot take `value`."""

    def apply(self, value: Any) -> bool:
        """Take in a checked value and tell whether the change is worth a line."""
        raise NotImplementedError

    def take_line(self) -> dict[str, Any]:
        """Return the fields of the line that is now due, and count it as written."""
        line: dict[str, Any] = {"metric_name": self._name}
        if _is_number(self.value):
            line["metric_value"] = self.value
            line["metric_delta"] = self.value - self.logged if _is_number(self.logged) else self.value
        else:
            line["metric_text"] = self.value  # apart, because a log index fixes the type of metric_value
        self.logged = self.value
        self._rearm()
        return line

    def _rearm(self) -> None:
        raise NotImplementedError


class _Counter(_Metric):
    __slots__ = ("_due_at",)

    value: float

    def __init__(self, name: str) -> None:
        super().__init__(name, 0)
        self._rearm()

    def check(self, value: Any) -> None:
        if _checked_number(self._name, value) < 0:
            expected = "a number of at least 0, since a counter only grows"
            raise refused(self._name, expected, shown(value), "name a gauge *_rate")

    def apply(self, value: Any) -> bool:
        if type(value) is not int or value < 0:
            self.check(value)
        self.value += value
        return self.value >= self._due_at

    def _rearm(self) -> None:
        self._due_at = next_threshold(self.value, every_change=self._every_change)


class _Gauge(_Metric):
    __slots__ = ("_quiet",)

    def __init__(self, name: str) -> None:
        super().__init__(name, None)
        self._quiet = _NOTHING_QUIET

    def apply(self, value: Any) -> bool:
        self.value = value
        if _is_number(value):
            return not self._quiet[0] <= value <= self._quiet[1]
        return bool(value != self.logged)

    def _rearm(self) -> None:
        numeric = _is_number(self.value)
        self._quiet = quiet_range(self.value, every_change=self._every_change) if numeric else _NOTHING_QUIET


class _Mean(_Metric):
    __slots__ = ("_count", "_quiet", "_total")

    value: float

    def __init__(self, name: str) -> None:
        super().__init__(name, 0.0)
        self._total = 0.0
        self._count = 0
        self._rearm()

    def check(self, value: Any) -> None:
        _checked_number(self._name, value)

    def apply(self, value: Any) -> bool:
        return self.add(_checked_number(self._name, value), 1)

    def add(self, total: float, count: int) -> bool:
        self._total += total
        self._count += count
        self.value = self._total / self._count
        lowest, highest = self._quiet
        return not lowest <= self.value <= highest

    def _rearm(self) -> None:
        self._quiet = quiet_range(self.value, every_change=self._every_change)


def _new_metric(name: str, first_value: Any) -> _Metric:
    match kind_of(name):
        case Kind.MEAN:
            return _Mean(name)
        case Kind.COUNTER if _is_number(first_value):
            return _Counter(name)
        case _:
            return _Gauge(name)


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _checked_number(field: str, value: Any) -> float:
    if not _is_number(value):
        raise refused(field, "a number", type_name(value))
    number: float = value
    return number


def _check_count(field: str, value: Any) -> int:
    return check_whole(field, value, 0, _LARGEST)


def _checked_value(field: str, value: Any) -> Any:
    """Turn every kind of real number into an int or float; leave anything else as it is."""
    if _is_number(value) and -_LARGEST <= value <= _LARGEST:  # nearly always; the checks below are slow
        return value
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        return value
    try:
        number = int(value) if isinstance(value, Integral) else float(value)
    except (OverflowError, ValueError):  # of a signalling NaN or an enormous fraction
        number = math.nan
    if not -_LARGEST <= number <= _LARGEST:
        way_out = "leave out samples without a number"
        raise refused(field, "a finite number below 2**63", "a larger one, an infinity or NaN", way_out)
    return number
