"""The state machine of `CircuitBreaker`, driven by a manual clock."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from queue_system.errors import CircuitOpenError
from queue_system.resilience import CircuitBreaker, CircuitState
from tests.kit.clocks import ManualClock


class DownError(Exception):
    """The service is down."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker("service", 3, 30.0, 2, 60.0, clock=clock)


def succeed() -> str:
    return "up"


def fail() -> None:
    raise DownError


async def fail_async() -> None:
    raise DownError


def state_of(breaker: CircuitBreaker) -> CircuitState:
    """The state, read anew: mypy takes a property to stay what it was."""
    return breaker.state


def open_up(breaker: CircuitBreaker) -> None:
    for _ in range(breaker.failure_threshold):
        breaker.record_failure()
    assert state_of(breaker) is CircuitState.OPEN


def make_half_open(breaker: CircuitBreaker, clock: ManualClock) -> None:
    open_up(breaker)
    clock.advance(breaker.recovery_timeout)
    assert state_of(breaker) is CircuitState.HALF_OPEN


def test_it_opens_at_the_threshold_and_rejects_without_calling(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """After three failures a call raises CircuitOpenError with the rest of the recovery time."""
    for _ in range(3):
        assert state_of(breaker) is CircuitState.CLOSED
        with pytest.raises(DownError):
            breaker.call(fail)
    clock.advance(10.0)
    called: list[int] = []
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(called.append, 1)
    assert caught.value.retry_after == pytest.approx(20.0)
    assert caught.value.name == "service"
    assert not called


def test_failures_count_only_within_the_window(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Three failures open it when the window holds all of them, however many came before."""
    for pause in (0.0, 31.0, 31.0, 31.0):
        clock.advance(pause)
        breaker.record_failure()
        assert state_of(breaker) is CircuitState.CLOSED
    clock.advance(20.0)
    breaker.record_failure()
    assert state_of(breaker) is CircuitState.OPEN


def test_a_success_does_not_forget_failures(breaker: CircuitBreaker) -> None:
    """A service that fails every other call still opens the breaker."""
    for _ in range(2):
        breaker.record_failure()
        assert breaker.call(succeed) == "up"
    breaker.record_failure()
    assert state_of(breaker) is CircuitState.OPEN


def test_the_first_successful_trial_closes_it(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """It starts again with no failures counted."""
    make_half_open(breaker, clock)
    assert breaker.call(succeed) == "up"
    assert state_of(breaker) is CircuitState.CLOSED
    breaker.record_failure()
    breaker.record_failure()
    assert state_of(breaker) is CircuitState.CLOSED


def test_a_failed_trial_opens_it_for_the_whole_recovery_time(breaker: CircuitBreaker, clock: ManualClock) -> None:
    make_half_open(breaker, clock)
    with pytest.raises(DownError):
        breaker.call(fail)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.before_call()
    assert caught.value.retry_after == pytest.approx(30.0)


def test_trials_at_once_are_limited(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """The third call is rejected with a wait above zero while two trials run, and admitted when one is released."""
    make_half_open(breaker, clock)
    era = breaker.before_call()
    assert breaker.before_call() == era
    with pytest.raises(CircuitOpenError) as caught:
        breaker.before_call()
    assert caught.value.retry_after > 0
    breaker.release(era)
    assert breaker.before_call() == era


async def test_a_cancelled_trial_is_no_failure_and_frees_its_place(clock: ManualClock) -> None:
    breaker = CircuitBreaker("service", 1, 30.0, 1, clock=clock)
    make_half_open(breaker, clock)
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(breaker.call(hang))
    await started.wait()
    with pytest.raises(CircuitOpenError):
        breaker.before_call()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert state_of(breaker) is CircuitState.HALF_OPEN
    assert breaker.call(succeed) == "up"
    assert state_of(breaker) is CircuitState.CLOSED


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), asyncio.CancelledError()])
def test_what_is_no_exception_is_no_failure(clock: ManualClock, error: BaseException) -> None:
    """Interrupts, exits and cancellations leave a closed breaker closed and free a trial's place."""
    breaker = CircuitBreaker("service", 1, 30.0, 1, clock=clock)

    def interrupt() -> None:
        raise error

    with pytest.raises(type(error)):
        breaker.call(interrupt)
    assert state_of(breaker) is CircuitState.CLOSED
    make_half_open(breaker, clock)
    with pytest.raises(type(error)):
        breaker.call(interrupt)
    assert breaker.call(succeed) == "up"


def test_only_the_listed_exceptions_are_failures(clock: ManualClock) -> None:
    """Another error neither opens a closed breaker nor ends a half-open one's trial period."""
    breaker = CircuitBreaker("service", 1, clock=clock, exceptions=(ConnectionError,))
    with pytest.raises(DownError):
        breaker.call(fail)
    assert state_of(breaker) is CircuitState.CLOSED
    make_half_open(breaker, clock)
    for _ in range(breaker.half_open_max_calls + 1):
        with pytest.raises(DownError):
            breaker.call(fail)
    assert state_of(breaker) is CircuitState.HALF_OPEN


def test_a_rejection_by_an_inner_breaker_is_no_failure(clock: ManualClock) -> None:
    """A CircuitOpenError says nothing about the service, unless it is listed itself."""

    def rejected() -> None:
        raise CircuitOpenError("inner", 1.0)

    for exceptions, state in ((None, CircuitState.CLOSED), ((CircuitOpenError,), CircuitState.OPEN)):
        breaker = CircuitBreaker("outer", 1, clock=clock, exceptions=exceptions)
        with pytest.raises(CircuitOpenError):
            breaker.call(rejected)
        assert state_of(breaker) is state


@pytest.mark.parametrize(
    "report", [CircuitBreaker.record_success, CircuitBreaker.record_failure, CircuitBreaker.release]
)
def test_an_outcome_from_an_earlier_era_counts_no_more(
    breaker: CircuitBreaker, clock: ManualClock, report: Callable[[CircuitBreaker, int], None]
) -> None:
    """A call admitted before the breaker opened decides nothing about its trials when it ends late."""
    old = breaker.before_call()
    make_half_open(breaker, clock)
    breaker.before_call()
    breaker.before_call()
    report(breaker, old)
    assert state_of(breaker) is CircuitState.HALF_OPEN
    with pytest.raises(CircuitOpenError):
        breaker.before_call()


async def test_async_and_sync_calls_share_one_count(breaker: CircuitBreaker) -> None:
    with pytest.raises(DownError):
        breaker.call(fail)
    for _ in range(2):
        with pytest.raises(DownError):
            await breaker.call(fail_async)
    with pytest.raises(CircuitOpenError):
        await breaker.call(fail_async)


def test_threads_that_arrive_together_get_no_more_trials_than_allowed(clock: ManualClock) -> None:
    """Of sixteen calls at one moment exactly three are admitted, and one success closes the breaker."""
    breaker = CircuitBreaker("service", 1, 30.0, 3, clock=clock)
    make_half_open(breaker, clock)
    barrier = threading.Barrier(16)

    def arrive(_: int) -> bool:
        barrier.wait(10)
        try:
            breaker.before_call()
        except CircuitOpenError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(arrive, range(16))) == 3
    breaker.record_success()
    assert state_of(breaker) is CircuitState.CLOSED


def test_a_service_at_a_new_place_is_tried_at_once(breaker: CircuitBreaker) -> None:
    """An open breaker admits as many trials as may run, without the rest of the recovery time."""
    open_up(breaker)
    breaker.half_open()
    assert state_of(breaker) is CircuitState.HALF_OPEN
    assert not breaker.is_open
    breaker.check()
    assert breaker.call(succeed) == "up"
    assert state_of(breaker) is CircuitState.CLOSED


async def test_a_coroutine_finds_the_new_place_at_once(breaker: CircuitBreaker) -> None:
    async def succeed_async() -> str:
        return "up"

    open_up(breaker)
    breaker.half_open()
    assert await breaker.call(succeed_async) == "up"
    assert state_of(breaker) is CircuitState.CLOSED


def test_a_new_place_that_fails_too_opens_it_for_the_whole_time(breaker: CircuitBreaker, clock: ManualClock) -> None:
    open_up(breaker)
    clock.advance(29.0)
    breaker.half_open()
    with pytest.raises(DownError):
        breaker.call(fail)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.call(succeed)
    assert caught.value.retry_after == pytest.approx(30.0)


def test_failures_at_the_old_place_count_no_more(breaker: CircuitBreaker) -> None:
    """Neither those before, nor those of calls that were under way when the place changed."""
    breaker.record_failure()
    breaker.record_failure()
    era = breaker.before_call()
    breaker.half_open()
    breaker.record_failure(era)
    breaker.record_failure()
    breaker.record_failure()
    assert state_of(breaker) is CircuitState.CLOSED
    breaker.record_failure()
    assert state_of(breaker) is CircuitState.OPEN


def test_trials_at_the_old_place_neither_close_it_nor_hold_up_those_at_the_new(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    make_half_open(breaker, clock)
    eras = [breaker.before_call() for _ in range(breaker.half_open_max_calls)]
    with pytest.raises(CircuitOpenError):
        breaker.before_call()
    breaker.half_open()
    breaker.record_success(eras[0])
    breaker.record_failure(eras[1])
    assert state_of(breaker) is CircuitState.HALF_OPEN
    assert breaker.call(succeed) == "up"
    assert state_of(breaker) is CircuitState.CLOSED


def test_places_may_change_while_many_call(breaker: CircuitBreaker) -> None:
    """Whatever is going on, a breaker whose service is up ends closed, and no place of a trial is lost."""

    def call(number: int) -> None:
        if number % 10 == 0:
            breaker.half_open()
        with contextlib.suppress(DownError, CircuitOpenError):
            breaker.call(fail if number % 2 else succeed)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(2000)))
    breaker.half_open()
    assert breaker.call(succeed) == "up"
    assert state_of(breaker) is CircuitState.CLOSED
