"""Which change of a metric is worth a log line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.metrics.thresholds import Kind, kind_of, logs_every_change, next_threshold, quiet_range


@pytest.mark.parametrize(
    "name, kind",
    [
        ("processed", Kind.COUNTER),
        ("timeouts", Kind.COUNTER),
        ("rate_limited", Kind.COUNTER),
        ("avg_process_time", Kind.MEAN),
        ("avg_hit_rate", Kind.MEAN),
        ("success_rate", Kind.GAUGE),
    ],
)
def test_the_name_tells_the_kind(name: str, kind: Kind) -> None:
    assert kind_of(name) is kind


@pytest.mark.parametrize(
    "names, every",
    [
        (["errors", "system_errors", "failed", "timeouts", "TimeoutTotal", "error_rate"], True),
        (["processed", "enqueued", "retried", "avg_process_time", "success_rate"], False),
    ],
    ids=["errors, failures and timeouts", "others"],
)
def test_names_of_errors_failures_and_timeouts_log_every_change_and_no_others(names: list[str], every: bool) -> None:
    assert [name for name in names if logs_every_change(name) is not every] == []


@given(value=st.integers(0, 10**30))
def test_a_threshold_lies_above_its_value_and_for_large_values_is_at_least_a_tenth_more(value: int) -> None:
    threshold = next_threshold(value)
    assert threshold > value
    if value >= 1000:
        assert (threshold - value) * 10 >= value
        assert (threshold - value - 1) * 10 < value


@given(value=st.floats(0, 1e18))
def test_a_fractional_counter_has_a_threshold_above_it_too(value: float) -> None:
    assert next_threshold(value) > value
    assert next_threshold(value, every_change=True) > value


def test_every_change_means_the_smallest_step() -> None:
    assert 41 < next_threshold(41, every_change=True) <= 41.01


@pytest.mark.parametrize("logged, quiet, notable", [(100.0, 110.0, 110.1), (100.0, 90.0, 89.9), (-10.0, -11.0, -11.1)])
def test_a_reading_is_quiet_within_ten_percent_of_the_last_logged_one(
    logged: float, quiet: float, notable: float
) -> None:
    lowest, highest = quiet_range(logged)
    assert lowest <= quiet <= highest
    assert not lowest <= notable <= highest


def test_nothing_but_the_same_reading_is_quiet_around_zero_or_when_every_change_counts() -> None:
    assert quiet_range(0.0) == (0.0, 0.0)
    assert quiet_range(50.0, every_change=True) == (50.0, 50.0)
