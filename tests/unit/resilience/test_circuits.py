"""Named breakers and the `circuit_breaker` decorator."""

from __future__ import annotations

import asyncio
import gc
import uuid

import pytest

from queue_system.errors import CircuitOpenError
from queue_system.resilience import CircuitState, circuit_breaker, get_breaker
from tests.kit.clocks import ManualClock
from tests.kit.refusals import refused


class DownError(Exception):
    """The service is down."""


@pytest.fixture
def name() -> str:
    """A name that no other test uses: breakers live as long as the process."""
    return uuid.uuid4().hex


class Config:
    """Something that has a breaker of its own."""

    def __init__(self, breaker_name: str) -> None:
        self.breaker_name = breaker_name

    @circuit_breaker(name=lambda self: self.breaker_name, failure_threshold=1)
    def fail(self) -> None:
        raise DownError

    @circuit_breaker(name=lambda self: self.breaker_name, failure_threshold=1)
    async def echo(self, value: str) -> str:
        return value

    @circuit_breaker(name=lambda self: self.breaker_name, failure_threshold=1)
    def check(self) -> None:
        pass


def test_one_name_is_one_breaker(name: str) -> None:
    """A failure in one function rejects the calls of another under the same name."""

    @circuit_breaker(name=name, failure_threshold=1)
    def fail() -> None:
        raise DownError

    @circuit_breaker(name, 1)
    def succeed() -> None:
        pass

    succeed()
    with pytest.raises(DownError):
        fail()
    with pytest.raises(CircuitOpenError):
        succeed()
    assert get_breaker(name).state is CircuitState.OPEN


def test_the_decorator_uses_an_existing_breaker_with_its_clock(name: str) -> None:
    clock = ManualClock()
    breaker = get_breaker(name, failure_threshold=1, clock=clock)

    @circuit_breaker(name=name, failure_threshold=1)
    def succeed() -> str:
        return "up"

    breaker.record_failure()
    with pytest.raises(CircuitOpenError):
        succeed()
    clock.advance(30.0)
    assert succeed() == "up"
    assert breaker.state is CircuitState.CLOSED


async def test_a_breaker_by_the_real_clock_admits_calls_again_when_it_says_so(name: str) -> None:
    """Sync and async calls go through once `retry_after` has passed, and none before."""
    down = True

    @circuit_breaker(name, failure_threshold=1, recovery_timeout=0.1)
    def serve() -> str:
        if down:
            raise DownError
        return "up"

    @circuit_breaker(name, failure_threshold=1, recovery_timeout=0.1)
    async def serve_later() -> str:
        return "up"

    with pytest.raises(DownError):
        serve()
    with pytest.raises(CircuitOpenError) as caught:
        await serve_later()
    assert 0 < caught.value.retry_after <= 0.1
    down = False
    await asyncio.sleep(caught.value.retry_after)
    assert (serve(), await serve_later()) == ("up", "up")


def test_without_a_name_it_is_the_functions_own() -> None:
    @circuit_breaker()
    def unnamed() -> None:
        raise DownError

    breaker = get_breaker(f"{__name__}.{unnamed.__qualname__}")
    for _ in range(breaker.failure_threshold):
        with pytest.raises(DownError):
            unnamed()
    assert breaker.state is CircuitState.OPEN


@pytest.mark.parametrize(
    "field, value",
    [
        ("failure_threshold", 6),
        ("recovery_timeout", 31.0),
        ("half_open_max_calls", 4),
        ("window_size", 61.0),
        ("exceptions", (ConnectionError,)),
    ],
)
def test_a_conflicting_parameter_is_refused_by_name(name: str, field: str, value: object) -> None:
    """Both ways to obtain a breaker refuse it; equal values, and none given, are no conflict."""
    breaker = get_breaker(name)
    with refused(field, "give the same value or another name"):
        circuit_breaker(name, **{field: value})(str)  # type: ignore[arg-type]  # typed by the field
    with refused(field):
        get_breaker(name, **{field: value})  # type: ignore[arg-type]  # typed by the field
    assert get_breaker(name) is get_breaker(name, failure_threshold=5, exceptions=(Exception,)) is breaker


async def test_a_name_from_self_gives_each_owner_its_own_breaker(name: str) -> None:
    """An open breaker of one config does not reject the calls of another, and all methods of one share it."""
    first, second = Config(f"{name}-1"), Config(f"{name}-2")
    with pytest.raises(DownError):
        first.fail()
    with pytest.raises(CircuitOpenError):
        first.check()
    with pytest.raises(CircuitOpenError):
        await first.echo("a")
    second.check()
    assert await second.echo("a") == "a"


def test_owners_of_one_name_share_a_breaker_that_lives_as_long_as_one_of_them(name: str) -> None:
    """The state outlives the owner that caused it while another has called, and is gone after the last."""
    first, second = Config(name), Config(name)
    second.check()
    with pytest.raises(DownError):
        first.fail()
    del first
    gc.collect()
    with pytest.raises(CircuitOpenError):
        second.check()
    del second
    gc.collect()
    Config(name).check()


def test_a_name_that_changes_leads_to_another_breaker(name: str) -> None:
    config = Config(f"{name}-1")
    with pytest.raises(DownError):
        config.fail()
    config.breaker_name = f"{name}-2"
    config.check()


def test_a_breaker_is_kept_unless_asked_otherwise(name: str) -> None:
    """`get_breaker` keeps what it makes; with `keep=False` it goes with its last holder."""
    get_breaker(name, failure_threshold=7)
    get_breaker(f"{name}-loose", keep=False, failure_threshold=7)
    gc.collect()
    assert get_breaker(name).failure_threshold == 7
    assert get_breaker(f"{name}-loose").failure_threshold == 5


def test_a_name_from_self_needs_an_argument_it_can_hold_weakly() -> None:
    """A call without a positional argument, or with one like a string, is refused with the way out."""

    @circuit_breaker(name=lambda host: f"host {host}")
    def ping(host: str) -> None:
        pass

    with refused("name", r"expected .*; pass the first argument by position"):
        ping(host="a")
    with refused("name", r"can be weakly referenced, .* got str; give text as the name"):
        ping("a")


def test_wrong_parameters_are_refused_at_decoration() -> None:
    """Also with a callable name, whose breaker does not exist yet, and without parentheses."""
    with refused("failure_threshold", "expected a whole number of at least 1, got 0"):
        circuit_breaker(name=lambda _: "any", failure_threshold=0)
    with refused("name", "expected text that is not empty, got list"):
        circuit_breaker(name=[])(str)  # type: ignore[arg-type]  # wrong on purpose
    with refused("name", "write @circuit_breaker"):
        circuit_breaker(str)("an argument of the call")  # type: ignore[arg-type]  # parentheses forgotten
