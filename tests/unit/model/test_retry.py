"""The retry schedule: its factories, its limits, its dictionary form and the refusal of wrong values."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.errors import InvalidInputError
from queue_system.model.retry import QueueRetryConfig

seconds = st.floats(min_value=0, max_value=1e9)
configs = st.builds(
    QueueRetryConfig,
    max_attempts=st.integers(1, 100),
    delays=st.none() | st.lists(seconds, min_size=1, max_size=10),
    timeout=st.none() | st.floats(min_value=0.001, max_value=1e9),
)


def test_the_default_is_five_executions_with_doubling_delays_and_no_timeout() -> None:
    config = QueueRetryConfig()
    assert config.max_attempts == 5
    assert config.delays == [1, 2, 4, 8, 16]
    assert config.timeout is None
    assert config.is_default
    assert config == QueueRetryConfig.exponential(max_attempts=5)


def test_the_default_schedule_grows_with_max_attempts_up_to_a_minute() -> None:
    config = QueueRetryConfig(8)
    assert config.delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert config._generate_exponential_delays() == config.delays


def test_fixed_repeats_one_delay_for_every_attempt() -> None:
    config = QueueRetryConfig.fixed(delay=30, max_attempts=3, timeout=300)
    assert (config.max_attempts, config.delays, config.timeout) == (3, [30, 30, 30], 300)
    assert QueueRetryConfig.fixed(0.5).delays == [0.5] * 5


def test_exponential_multiplies_from_min_delay_up_to_max_delay() -> None:
    config = QueueRetryConfig.exponential(base=3.0, min_delay=0.5, max_delay=10.0, max_attempts=4, timeout=3600)
    assert (config.delays, config.timeout) == ([0.5, 1.5, 4.5, 10.0], 3600)


@pytest.mark.parametrize("min_delay, last", [(1.0, 60.0), (0.0, 0.0)])
def test_exponential_with_very_many_attempts_stays_at_max_delay(min_delay: float, last: float) -> None:
    config = QueueRetryConfig.exponential(base=1e9, min_delay=min_delay, max_attempts=10_000)
    assert len(config.delays) == 10_000
    assert config.delays[-1] == last


def test_custom_takes_as_many_attempts_as_it_has_delays_unless_told_otherwise() -> None:
    delays = [60, 300, 1800, 7200]
    config = QueueRetryConfig.custom(delays=delays, timeout=86400)
    assert (config.max_attempts, config.delays, config.timeout) == (4, delays, 86400)
    config = QueueRetryConfig.custom(delays=delays, max_attempts=9)
    assert (config.max_attempts, config.delays) == (9, delays)


@given(config=configs, attempt=st.integers(0, 1000))
def test_a_delay_lies_within_ten_percent_of_its_entry_and_the_last_entry_repeats(
    config: QueueRetryConfig, attempt: int
) -> None:
    planned = config.delays[min(attempt, len(config.delays) - 1)]
    delay = config.get_delay_for_attempt(attempt)
    assert delay >= 0
    assert planned * 0.899 <= delay <= planned * 1.101


def test_jitter_varies() -> None:
    config = QueueRetryConfig.fixed(10)
    assert len({config.get_delay_for_attempt(0) for _ in range(200)}) > 100


@pytest.mark.parametrize("attempt", [-1, 1.0, True, None])
def test_an_attempt_that_is_no_index_is_refused(attempt: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^attempt: "):
        QueueRetryConfig().get_delay_for_attempt(attempt)


@given(config=configs)
def test_the_dictionary_form_and_pickle_give_back_an_equal_config(config: QueueRetryConfig) -> None:
    data = config.to_dict()
    assert list(data) == ["max_attempts", "delays", "timeout"]
    stored = json.loads(json.dumps(data))
    unpickled = pickle.loads(pickle.dumps(config))  # noqa: S301 - own bytes
    for twin in (
        QueueRetryConfig.from_dict(data),
        QueueRetryConfig.from_dict(stored),
        unpickled,
        copy.deepcopy(config),
    ):
        assert twin == config
        assert hash(twin) == hash(config)


def test_from_dict_ignores_unknown_members_and_defaults_missing_ones() -> None:
    assert QueueRetryConfig.from_dict({"colour": "blue"}).is_default
    assert QueueRetryConfig.from_dict({"max_attempts": 2}).delays == [1, 2]


@pytest.mark.parametrize("data", [None, [], "max_attempts", 5])
def test_from_dict_refuses_what_is_no_dictionary(data: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^retry_config: "):
        QueueRetryConfig.from_dict(data)


def test_a_retry_that_starts_at_or_after_the_timeout_exceeds_it() -> None:
    config = QueueRetryConfig(timeout=300)
    assert not config.would_exceed_timeout(1000.0, 1299.0)
    assert config.would_exceed_timeout(1000.0, 1300.0)
    assert not config.would_exceed_timeout(1000.0, 1200.0, delay=99.0)
    assert config.would_exceed_timeout(1000.0, 1200.0, delay=100.0)


def test_a_clock_that_was_set_back_counts_as_no_time_elapsed() -> None:
    config = QueueRetryConfig(timeout=300)
    assert config.would_exceed_timeout(1000.0, 0.0, delay=300.0)
    assert not config.would_exceed_timeout(1000.0, 0.0, delay=299.0)


def test_without_a_timeout_nothing_exceeds_it() -> None:
    assert not QueueRetryConfig().would_exceed_timeout(0.0, 1e12, delay=1e9)


def test_a_config_cannot_be_changed_from_outside() -> None:
    given_delays = [1.0, 2.0]
    config = QueueRetryConfig(delays=given_delays)
    given_delays.append(3.0)
    config.delays.append(4.0)
    config.to_dict()["delays"].append(5.0)
    assert config.delays == [1.0, 2.0]
    for name in ("max_attempts", "delays", "timeout", "other"):
        with pytest.raises(AttributeError):
            setattr(config, name, 1)


def test_configs_differ_when_one_value_differs() -> None:
    config = QueueRetryConfig(3, [1.0], 10.0)
    for other in (QueueRetryConfig(4, [1.0], 10.0), QueueRetryConfig(3, [2.0], 10.0), QueueRetryConfig(3, [1.0])):
        assert config != other
        assert not other.is_default
    assert config != config.to_dict()


def test_the_representation_can_be_evaluated() -> None:
    config = QueueRetryConfig(3, [1, 2.5], 10)
    assert repr(config) == "QueueRetryConfig(max_attempts=3, delays=[1.0, 2.5], timeout=10.0)"


@pytest.mark.parametrize("value", [0, -1, 10_001, 10**400, True, 2.0, "3", None])
def test_a_wrong_max_attempts_is_refused_everywhere(value: Any) -> None:
    builds: tuple[Callable[[], QueueRetryConfig], ...] = (
        lambda: QueueRetryConfig(value),
        lambda: QueueRetryConfig.fixed(1, value),
        lambda: QueueRetryConfig.exponential(max_attempts=value),
        lambda: QueueRetryConfig.from_dict({"max_attempts": value}),
    )
    for build in builds:
        with pytest.raises(InvalidInputError) as caught:
            build()
        assert caught.value.field == "max_attempts"


@pytest.mark.parametrize("value", [[], (), "60", 60, {60}, {"a": 1}, [1] * 10_001])
def test_delays_that_are_no_list_of_usable_length_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^delays: "):
        QueueRetryConfig(delays=value)
    with pytest.raises(InvalidInputError, match=r"^delays: "):
        QueueRetryConfig.custom(value)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf, 1e10, 10**400, True, "1", None, [1]])
def test_a_wrong_delay_is_refused_and_its_place_named(value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        QueueRetryConfig.custom([1, value])
    assert caught.value.field == "delays[1]"
    with pytest.raises(InvalidInputError) as caught:
        QueueRetryConfig.fixed(value)
    assert caught.value.field == "delay"


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 10**400, True, "60", [60]])
def test_a_wrong_timeout_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        QueueRetryConfig(timeout=value)
    assert caught.value.field == "timeout"


@pytest.mark.parametrize(
    "arguments, field",
    [
        ({"base": 0}, "base"),
        ({"base": -2.0}, "base"),
        ({"base": math.nan}, "base"),
        ({"min_delay": -1}, "min_delay"),
        ({"max_delay": math.inf}, "max_delay"),
        ({"min_delay": 10, "max_delay": 5}, "max_delay"),
    ],
)
def test_a_wrong_exponential_parameter_is_refused(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        QueueRetryConfig.exponential(**arguments)
    assert caught.value.field == field
