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

from queue_system.model.retry import QueueRetryConfig
from tests.kit.refusals import refused

seconds = st.floats(min_value=0, max_value=1e9)
configs = st.builds(
    QueueRetryConfig,
    max_attempts=st.integers(1, 100),
    delays=st.none() | st.lists(seconds, min_size=1, max_size=10),
    timeout=st.none() | st.floats(min_value=0.001, max_value=1e9),
)


@pytest.mark.parametrize(
    "config, max_attempts, delays, timeout",
    [
        (QueueRetryConfig(), 5, [1, 2, 4, 8, 16], None),
        (QueueRetryConfig.exponential(max_attempts=5), 5, [1, 2, 4, 8, 16], None),
        (QueueRetryConfig(8), 8, [1, 2, 4, 8, 16, 32, 60, 60], None),
        (QueueRetryConfig.fixed(delay=30, max_attempts=3, timeout=300), 3, [30, 30, 30], 300),
        (QueueRetryConfig.fixed(0.5), 5, [0.5] * 5, None),
        (QueueRetryConfig.exponential(3.0, 0.5, 10.0, max_attempts=4, timeout=3600), 4, [0.5, 1.5, 4.5, 10.0], 3600),
        (QueueRetryConfig.custom(delays=[60, 300, 7200], timeout=86400), 3, [60, 300, 7200], 86400),
        (QueueRetryConfig.custom(delays=[60, 300, 7200], max_attempts=9), 9, [60, 300, 7200], None),
    ],
    ids=repr,
)
def test_each_factory_gives_its_attempts_delays_and_timeout(
    config: QueueRetryConfig, max_attempts: int, delays: list[float], timeout: float | None
) -> None:
    """The default doubles up to a minute; as many delays as attempts, or as many attempts as delays."""
    assert (config.max_attempts, config.delays, config.timeout) == (max_attempts, delays, timeout)
    assert config.is_default is (config == QueueRetryConfig())
    floats = [float(delay) for delay in delays]
    whole = timeout if timeout is None else float(timeout)
    assert repr(config) == f"QueueRetryConfig(max_attempts={max_attempts}, delays={floats}, timeout={whole})"


def test_the_delays_that_are_made_by_default_can_be_asked_for() -> None:
    config = QueueRetryConfig(8)
    assert config._generate_exponential_delays() == config.delays


@pytest.mark.parametrize("min_delay, last", [(1.0, 60.0), (0.0, 0.0)])
def test_exponential_with_very_many_attempts_stays_at_max_delay(min_delay: float, last: float) -> None:
    config = QueueRetryConfig.exponential(base=1e9, min_delay=min_delay, max_attempts=10_000)
    assert len(config.delays) == 10_000
    assert config.delays[-1] == last


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
    with refused("attempt"):
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
    with refused("retry_config"):
        QueueRetryConfig.from_dict(data)


@pytest.mark.parametrize(
    "timeout, first, now, delay, exceeds",
    [
        (300, 1000.0, 1299.0, 0.0, False),
        (300, 1000.0, 1300.0, 0.0, True),
        (300, 1000.0, 1200.0, 99.0, False),
        (300, 1000.0, 1200.0, 100.0, True),
        (300, 1000.0, 0.0, 299.0, False),
        (300, 1000.0, 0.0, 300.0, True),
        (None, 0.0, 1e12, 1e9, False),
    ],
)
def test_a_retry_that_starts_at_or_after_the_timeout_exceeds_it(
    timeout: float | None, first: float, now: float, delay: float, *, exceeds: bool
) -> None:
    """A clock that was set back counts as no time elapsed; without a timeout nothing exceeds it."""
    assert QueueRetryConfig(timeout=timeout).would_exceed_timeout(first, now, delay=delay) is exceeds


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


@pytest.mark.parametrize("value", [0, -1, 10_001, 10**400, True, 2.0, "3", None])
def test_a_wrong_max_attempts_is_refused_everywhere(value: Any) -> None:
    builds: tuple[Callable[[], QueueRetryConfig], ...] = (
        lambda: QueueRetryConfig(value),
        lambda: QueueRetryConfig.fixed(1, value),
        lambda: QueueRetryConfig.custom([1], value if value is not None else 0),
        lambda: QueueRetryConfig.exponential(max_attempts=value),
        lambda: QueueRetryConfig.from_dict({"max_attempts": value}),
    )
    for build in builds:
        with refused("max_attempts"):
            build()


@pytest.mark.parametrize("value", [[], (), "60", 60, {60}, {"a": 1}, [1] * 10_001])
@pytest.mark.parametrize("build", [lambda delays: QueueRetryConfig(delays=delays), QueueRetryConfig.custom])
def test_delays_that_are_no_list_of_usable_length_are_refused(build: Callable[[Any], object], value: Any) -> None:
    with refused("delays"):
        build(value)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf, 1e10, 10**400, True, "1", None, [1]])
def test_a_wrong_delay_is_refused_and_its_place_named(value: Any) -> None:
    with refused("delays[1]"):
        QueueRetryConfig.custom([1, value])
    with refused("delay"):
        QueueRetryConfig.fixed(value)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 10**400, True, "60", [60]])
def test_a_wrong_timeout_is_refused(value: Any) -> None:
    with refused("timeout"):
        QueueRetryConfig(timeout=value)


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
    with refused(field):
        QueueRetryConfig.exponential(**arguments)
