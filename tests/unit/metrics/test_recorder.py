"""What the recorder counts and which lines it writes."""

from __future__ import annotations

import logging
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from queue_system.metrics import MetricsRecorder, StructuredLogger
from tests.kit.clocks import ManualClock
from tests.kit.logs import LineLogger
from tests.kit.refusals import refused
from tests.kit.threads import in_threads


class Bench:
    """A recorder with the logger and the clock that it was given."""

    def __init__(self) -> None:
        self.logger = LineLogger()
        self.clock = ManualClock()
        self.recorder = MetricsRecorder(StructuredLogger.wrap(self.logger))

    def take_lines(self) -> list[dict[str, Any]]:
        lines, self.logger.lines = self.logger.lines, []
        assert all(line[:2] == ("info", "Queue metric update") for line in lines)
        return [line[2] for line in lines]

    def take_values(self) -> list[Any]:
        return [line["metric_value"] for line in self.take_lines()]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_all_standard_metrics_are_there_from_the_start(bench: Bench) -> None:
    assert bench.recorder.snapshot() == {
        "enqueued": 0,
        "processed": 0,
        "failed": 0,
        "retried": 0,
        "timeouts": 0,
        "system_errors": 0,
        "errors": 0,
        "avg_process_time": 0.0,
        "success_rate": 0.0,
    }


def test_the_success_rate_is_computed_from_successes_and_terminal_failures(bench: Bench) -> None:
    bench.recorder.add_many("processed", 3)
    bench.recorder.update("failed")
    bench.recorder.update("retried", 50)
    assert bench.recorder.snapshot()["success_rate"] == 75.0


def test_a_line_names_the_metric_its_value_and_the_change_since_its_last_line(bench: Bench) -> None:
    bench.recorder.add_many("processed", 5)
    bench.recorder.add_many("processed", 4)
    bench.recorder.add_many("processed", 3)
    assert bench.take_lines() == [
        {"metric_name": "processed", "metric_value": 5, "metric_delta": 5},
        {"metric_name": "processed", "metric_value": 12, "metric_delta": 7},
    ]


@pytest.mark.parametrize(
    "name, changes, logged",
    [
        ("processed", [1] * 1250, [1, 2, 3, 4, 5, 10, 100, 1000, 1100, 1210]),
        ("enqueued", [500, 499, 500], [500, 1499]),
        ("hit_rate", [50.0, 55.0, 45.0, 44.0, -3], [50.0, 44.0, -3]),
    ],
    ids=["a counter at its thresholds only", "a jump over several in one line", "a rate that moved by over a tenth"],
)
def test_only_notable_changes_are_logged(bench: Bench, name: str, changes: list[float], logged: list[float]) -> None:
    for change in changes:
        bench.recorder.update(name, change)
    assert bench.take_values() == logged
    assert bench.recorder.snapshot()[name] == (changes[-1] if name == "hit_rate" else sum(changes))


@pytest.mark.parametrize("name", ["errors", "system_errors", "failed", "timeouts", "http_errors"])
def test_errors_failures_and_timeouts_log_every_change_but_no_standstill(bench: Bench, name: str) -> None:
    for _ in range(30):
        bench.recorder.update(name)
        bench.recorder.update(name, 0)
    bench.recorder.update(name, 0.25)
    assert bench.take_values() == [*range(1, 31), 30.25]


def test_force_log_writes_a_line_in_any_case(bench: Bench) -> None:
    bench.recorder.add_many("processed", 6)
    bench.take_lines()
    bench.recorder.update("processed", 1, force_log=True)
    bench.recorder.update("processed", 0, True)
    assert bench.take_values() == [7, 7]


def test_a_mean_logs_when_it_moved_by_more_than_a_tenth(bench: Bench) -> None:
    bench.recorder.update("avg_process_time", 100)
    bench.recorder.update("avg_process_time", 110)
    bench.recorder.add_samples("avg_process_time", 270.0, 2)
    bench.recorder.add_samples("avg_process_time", 0.0, 0)
    assert bench.recorder.snapshot()["avg_process_time"] == 120.0
    assert bench.take_lines() == [
        {"metric_name": "avg_process_time", "metric_value": 100.0, "metric_delta": 100.0},
        {"metric_name": "avg_process_time", "metric_value": 120.0, "metric_delta": 20.0},
    ]


def test_success_rate_given_by_the_user_is_logged_while_the_snapshot_stays_computed(bench: Bench) -> None:
    bench.recorder.update("success_rate", 12.5, force_log=True)
    assert bench.take_values() == [12.5]
    assert bench.recorder.snapshot()["success_rate"] == 0.0


def test_what_is_no_number_is_stored_as_it_is_and_logged_when_it_changes(bench: Bench) -> None:
    for value in ("green", "green", "red", True, None):
        bench.recorder.update("state", value)
    assert bench.recorder.snapshot()["state"] is None
    bench.recorder.update("state", 7)
    assert bench.take_lines() == [
        {"metric_name": "state", "metric_text": "green"},
        {"metric_name": "state", "metric_text": "red"},
        {"metric_name": "state", "metric_text": True},
        {"metric_name": "state", "metric_text": None},
        {"metric_name": "state", "metric_value": 7, "metric_delta": 7},
    ]


@pytest.mark.parametrize("value", [Decimal("2.5"), Fraction(5, 2), 2.5])
def test_every_kind_of_real_number_is_added(bench: Bench, value: Any) -> None:
    bench.recorder.update("megabytes", value)
    bench.recorder.update("megabytes", 2)
    assert bench.recorder.snapshot()["megabytes"] == 4.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**63, Decimal("sNaN"), Fraction(10**400)])
@pytest.mark.parametrize("name", ["processed", "avg_process_time", "hit_rate", "new"])
def test_numbers_that_no_log_index_can_hold_are_refused(bench: Bench, name: str, value: Any) -> None:
    before = bench.recorder.snapshot()
    with refused(name):
        bench.recorder.update(name, value)
    assert bench.recorder.snapshot() == before


@pytest.mark.parametrize("name", ["processed", "new"])
def test_a_counter_never_shrinks(bench: Bench, name: str) -> None:
    before = bench.recorder.snapshot()
    for shrink in (-1, -0.5):
        with refused(name, "a counter only grows"):
            bench.recorder.update(name, shrink)
    for add in (bench.recorder.add_many, bench.recorder.hold):
        with refused("n"):
            add(name, -1)
    assert bench.recorder.snapshot() == before


@pytest.mark.parametrize("name", ["processed", "avg_process_time", "avg_new"])
@pytest.mark.parametrize("value", ["5", None, True, [1]])
def test_counters_and_means_take_numbers_only(bench: Bench, name: str, value: Any) -> None:
    before = bench.recorder.snapshot()
    with refused(name, "expected a number"):
        bench.recorder.update(name, value)
    assert bench.recorder.snapshot() == before


def test_a_method_for_another_kind_of_metric_is_refused(bench: Bench) -> None:
    with refused("avg_process_time", "expected the name of a counter"):
        bench.recorder.add_many("avg_process_time", 1)
    with refused("hit_rate", "expected the name of a counter"):
        bench.recorder.hold("hit_rate")
    with refused("processed", "expected the name of a mean"):
        bench.recorder.add_samples("processed", 1.0, 1)
    with refused("total"):
        bench.recorder.add_samples("avg_process_time", math.nan, 1)


@pytest.mark.parametrize("name", ["", 5, None])
def test_a_metric_needs_a_name(bench: Bench, name: Any) -> None:
    with refused("metric_name"):
        bench.recorder.update(name)


def test_what_is_held_counts_at_once_and_is_written_with_the_next_update(bench: Bench) -> None:
    for _ in range(5):
        bench.recorder.hold("errors", 2)
    assert bench.recorder.snapshot()["errors"] == 10
    assert bench.take_values() == []
    bench.recorder.update("errors", force_log=True)
    assert bench.take_lines() == [{"metric_name": "errors", "metric_value": 11, "metric_delta": 11}]


def test_flush_writes_what_was_held_back_once(bench: Bench) -> None:
    bench.recorder.hold("errors")
    bench.recorder.hold("errors")
    bench.recorder.add_many("processed", 6)
    bench.recorder.add_many("processed", 1)
    bench.take_lines()
    bench.recorder.flush()
    bench.recorder.flush()
    assert bench.take_lines() == [{"metric_name": "errors", "metric_value": 2, "metric_delta": 2}]


def test_a_batch_is_always_logged_with_its_speed(bench: Bench) -> None:
    bench.recorder.log_batch("enqueue", 500, 250.0)
    bench.recorder.log_batch("enqueue", 0, 0.0)
    assert bench.take_lines() == [
        {"metric_name": "batch_enqueue", "metric_value": 500, "duration_ms": 250.0, "per_second": 2000.0},
        {"metric_name": "batch_enqueue", "metric_value": 0, "duration_ms": 0.0, "per_second": 0.0},
    ]


def test_threads_lose_no_update(bench: Bench) -> None:
    def work() -> None:
        for _ in range(2000):
            bench.recorder.update("processed")
            bench.recorder.hold("errors")
            bench.recorder.update("avg_process_time", 3)

    in_threads(4, work)
    snapshot = bench.recorder.snapshot()
    assert (snapshot["processed"], snapshot["errors"], snapshot["avg_process_time"]) == (8000, 8000, 3.0)


def test_a_log_handler_may_use_the_recorder_itself() -> None:
    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            recorder.add_many("lines", 0)

    logger = logging.Logger("test", logging.INFO)  # noqa: LOG001 - outside the global tree
    logger.addHandler(Counting())
    recorder = MetricsRecorder(StructuredLogger.wrap(logger))
    recorder.update("processed")
    assert recorder.snapshot()["lines"] == 0
