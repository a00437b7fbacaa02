"""`retry_with_backoff`: what is retried, how long it waits, and what is raised in the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.errors import CircuitOpenError, QueueSystemError
from queue_system.resilience import backoff_delay, retry_with_backoff
from queue_system.resilience.backoff import RetryPolicy, RetryRun
from tests.kit.clocks import ManualClock

FLAKY = ConnectionError("flaky")


class Flaky:
    """Raises the given errors in turn, then succeeds; remembers how often it was called."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


@given(st.integers(0, 10_000), st.floats(0.001, 100.0), st.floats(0, 1e6))
def test_a_delay_doubles_up_to_its_maximum_with_a_quarter_of_jitter(attempt: int, base: float, maximum: float) -> None:
    expected = min(maximum, base * 2.0 ** min(attempt, 100))
    assert 0.749 * expected <= backoff_delay(attempt, base, maximum) <= 1.251 * expected


def test_jitter_varies() -> None:
    assert len({backoff_delay(3, 0.5, 5.0) for _ in range(200)}) > 100


def test_a_call_that_recovers_returns_its_result() -> None:
    """Three retries follow the first attempt."""
    flaky = Flaky(FLAKY, FLAKY, FLAKY)
    assert retry_with_backoff(base_delay=0.0)(flaky.__call__)() == "done"
    assert flaky.calls == 4


async def test_an_async_call_that_recovers_returns_its_result() -> None:
    flaky = Flaky(FLAKY, FLAKY)

    @retry_with_backoff(base_delay=0.0)
    async def call(suffix: str) -> str:
        return flaky() + suffix

    assert await call("!") == "done!"
    assert flaky.calls == 3


async def test_the_last_error_is_raised_itself() -> None:
    """It is the same object, sync and async, and no attempt follows it."""
    errors = [ConnectionError(number) for number in range(4)]
    flaky = Flaky(*errors)

    @retry_with_backoff(max_retries=1, base_delay=0.0)
    def call() -> str:
        return flaky()

    @retry_with_backoff(max_retries=1, base_delay=0.0)
    async def call_async() -> str:
        return flaky()

    with pytest.raises(ConnectionError) as caught:
        call()
    assert caught.value is errors[1]
    with pytest.raises(ConnectionError) as caught:
        await call_async()
    assert caught.value is errors[3]


@pytest.mark.parametrize(
    "settings",
    [{"max_retries": 0}, {"base_delay": 100.0, "max_delay": 100.0, "total_timeout": 30.0}],
    ids=["without retries", "before a wait that would be too long"],
)
def test_the_first_error_is_the_last_where_no_attempt_may_follow(settings: dict[str, Any]) -> None:
    flaky = Flaky(FLAKY)
    with pytest.raises(ConnectionError) as caught:
        retry_with_backoff(**settings)(flaky.__call__)()
    assert caught.value is FLAKY
    assert flaky.calls == 1


@pytest.mark.parametrize(
    "error", [ValueError("other"), asyncio.CancelledError(), KeyboardInterrupt(), CircuitOpenError("c", 1.0)]
)
def test_what_is_not_selected_is_not_retried(error: BaseException) -> None:
    flaky = Flaky(error)
    with pytest.raises(type(error)) as caught:
        retry_with_backoff(base_delay=0.0, exceptions=(ConnectionError, QueueSystemError))(flaky.__call__)()
    assert caught.value is error
    assert flaky.calls == 1


def test_an_open_circuit_is_retried_only_where_it_is_listed() -> None:
    """Neither the default nor a base class selects a CircuitOpenError."""
    flaky = Flaky(CircuitOpenError("c", 1.0), CircuitOpenError("c", 1.0))
    with pytest.raises(CircuitOpenError):
        retry_with_backoff(base_delay=0.0)(flaky.__call__)()
    assert flaky.calls == 1
    assert retry_with_backoff(base_delay=0.0, exceptions=(CircuitOpenError,))(flaky.__call__)() == "done"


async def test_a_cancellation_during_a_wait_ends_the_call() -> None:
    flaky = Flaky(FLAKY)
    failed = asyncio.Event()

    @retry_with_backoff(base_delay=20.0, max_delay=20.0)
    async def call() -> str:
        failed.set()
        return flaky()

    task = asyncio.create_task(call())
    await failed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flaky.calls == 1


def test_no_wait_passes_the_total_timeout() -> None:
    """The error is the last when the next wait would end too late, counted from the first attempt."""
    clock = ManualClock()
    policy = RetryPolicy(10, 1.0, 1.0, (Exception,), total_timeout=30.0)
    run = RetryRun(policy, clock)
    clock.advance(28.0)
    wait = run.next_wait(FLAKY)
    assert wait is not None
    assert 0.75 <= wait <= 1.25
    clock.advance(1.5)
    assert run.next_wait(FLAKY) is None


def test_no_wait_is_longer_than_the_largest_one() -> None:
    flaky = Flaky(FLAKY, FLAKY)
    assert retry_with_backoff(base_delay=300.0, max_delay=0.001)(flaky.__call__)() == "done"
