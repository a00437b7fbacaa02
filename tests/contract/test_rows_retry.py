"""What each row of the table of QueueRetryConfig promises, and the decisions about its fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from queue_system import InvalidInputError, QueueRetryConfig


@pytest.mark.parametrize(
    "retry, delays, max_attempts, timeout",
    [
        (QueueRetryConfig(), [1, 2, 4, 8, 16], 5, None),
        (QueueRetryConfig(3), [1, 2, 4], 3, None),
        (QueueRetryConfig(3, [7], 60), [7], 3, 60),
        (QueueRetryConfig.fixed(30, 3, 300), [30, 30, 30], 3, 300),
        (QueueRetryConfig.fixed(delay=0.5), [0.5] * 5, 5, None),
        (QueueRetryConfig.exponential(), [1, 2, 4, 8, 16], 5, None),
        (QueueRetryConfig.exponential(3.0, 2.0, 20.0, 4, 90.0), [2, 6, 18, 20], 4, 90),
        (QueueRetryConfig.custom([60, 300, 1800, 7200], timeout=86400), [60, 300, 1800, 7200], 4, 86400),
        (QueueRetryConfig.custom([1, 5], max_attempts=6), [1, 5], 6, None),
    ],
)
def test_each_way_to_make_one_gives_its_delays_attempts_and_timeout(
    retry: QueueRetryConfig, delays: list[float], max_attempts: int, timeout: float | None
) -> None:
    assert (retry.delays, retry.max_attempts, retry.timeout) == (delays, max_attempts, timeout)


def test_get_delay_for_attempt_counts_from_0_and_repeats_the_last_delay() -> None:
    retry = QueueRetryConfig.custom([10, 20, 40])
    for attempt, delay in enumerate([10, 20, 40, 40, 40]):
        samples = [retry.get_delay_for_attempt(attempt) for _ in range(200)]
        assert all(0.9 * delay <= sample <= 1.1 * delay for sample in samples)
        assert len(set(samples)) > 100, "jitter"


def test_to_dict_survives_json_and_from_dict() -> None:
    retry = QueueRetryConfig.custom([1, 2.5], max_attempts=4, timeout=60)
    data = json.loads(json.dumps(retry.to_dict()))
    assert data == {"max_attempts": 4, "delays": [1, 2.5], "timeout": 60}
    assert QueueRetryConfig.from_dict(data) == retry
    assert QueueRetryConfig.from_dict({}) == QueueRetryConfig()


@pytest.mark.parametrize("elapsed, exceeds", [(0, False), (59.9, False), (60, True), (1e6, True)])
def test_would_exceed_timeout_compares_the_time_since_the_first_attempt(elapsed: float, exceeds: bool) -> None:
    assert QueueRetryConfig(timeout=60).would_exceed_timeout(1000.0, 1000.0 + elapsed) is exceeds
    assert QueueRetryConfig().would_exceed_timeout(1000.0, 1000.0 + elapsed) is False


def test_generate_exponential_delays_has_fixed_parameters_and_one_delay_for_each_attempt() -> None:
    assert QueueRetryConfig(8)._generate_exponential_delays() == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(
    "field, arguments",
    [
        ("max_attempts", {"max_attempts": 0}), ("max_attempts", {"max_attempts": 2.5}), ("delays", {"delays": []}),
        ("delays[1]", {"delays": [1, -1]}), ("timeout", {"timeout": 0}), ("timeout", {"timeout": float("nan")}),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_by_name(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        QueueRetryConfig(**arguments)
    assert caught.value.field == field
