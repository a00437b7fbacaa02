"""What all decorators have in common: a function keeps its identity, and a wrong parameter is refused by name."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from queue_system.resilience import CircuitBreaker, circuit_breaker, retry_with_backoff, try_catch, with_timeout
from tests.kit.refusals import refused

DECORATORS: dict[str, Callable[[Any], Any]] = {
    "circuit_breaker": circuit_breaker(),
    "retry_with_backoff": retry_with_backoff(),
    "try_catch": try_catch,
    "with_timeout": with_timeout(),
}


async def later(number: int) -> str:
    """Say the number."""
    return str(number)


def at_once(number: int) -> str:
    """Say the number."""
    return str(number)


@pytest.mark.parametrize("original", [later, at_once])
@pytest.mark.parametrize("decorate", DECORATORS.values(), ids=DECORATORS)
def test_the_decorated_function_keeps_its_identity(
    decorate: Callable[[Any], Any], original: Callable[[int], Any]
) -> None:
    """Name, docstring, signature, kind and `__wrapped__` stay."""
    decorated = decorate(original)
    assert decorated is not original
    assert (decorated.__name__, decorated.__doc__) == (original.__name__, "Say the number.")
    assert inspect.iscoroutinefunction(decorated) is inspect.iscoroutinefunction(original)
    assert inspect.signature(decorated) == inspect.signature(original)
    assert inspect.unwrap(decorated) is original


def named(name: str = "service", **parameters: Any) -> CircuitBreaker:
    return CircuitBreaker(name, **parameters)


@pytest.mark.parametrize(
    "make, field, value",
    [
        *((with_timeout, "default_timeout", value) for value in (0, -1.0, float("nan"), float("inf"), True, "5", None)),
        (retry_with_backoff, "max_retries", -1),
        (retry_with_backoff, "max_retries", 1.5),
        (retry_with_backoff, "base_delay", -0.1),
        (retry_with_backoff, "max_delay", float("inf")),
        (retry_with_backoff, "exceptions", ConnectionError),
        (retry_with_backoff, "exceptions", (BaseException,)),
        (retry_with_backoff, "total_timeout", 0),
        (named, "name", ""),
        (named, "failure_threshold", 0),
        (named, "failure_threshold", 2.5),
        (named, "recovery_timeout", 0),
        (named, "recovery_timeout", float("nan")),
        (named, "half_open_max_calls", True),
        (named, "window_size", -1.0),
        (named, "exceptions", ()),
        (named, "exceptions", ConnectionError),
        (named, "exceptions", (asyncio.CancelledError,)),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(make: Callable[..., object], field: str, value: object) -> None:
    with refused(field, "expected a number of seconds above 0" if make is with_timeout else None):
        make(**{field: value})
