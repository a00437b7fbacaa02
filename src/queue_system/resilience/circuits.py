"""The process's named circuit breakers and the decorator that finds them."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, cast

from queue_system.clock import Clock
from queue_system.resilience.breaker import CircuitBreaker
from queue_system.resilience.naming import qualified_name
from queue_system.validation import NOT_EMPTY, check_text, refused, shown, type_name

__all__ = ["BreakerParameters", "breaker_states", "circuit_breaker", "get_breaker"]

P = ParamSpec("P")
R = TypeVar("R")

_breakers: weakref.WeakValueDictionary[str, CircuitBreaker] = weakref.WeakValueDictionary()
_kept: dict[str, CircuitBreaker] = {}
_lock = threading.RLock()  # a signal handler may ask for one, too
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class BreakerParameters(TypedDict, total=False):
    """The parameters of a CircuitBreaker that all users of its name must agree on."""

    failure_threshold: int
    recovery_timeout: float
    half_open_max_calls: int
    window_size: float
    exceptions: tuple[type[Exception], ...] | None


def get_breaker(
    name: str, *, keep: bool = True, clock: Clock | None = None, **parameters: Unpack[BreakerParameters]
) -> CircuitBreaker:
    """The process's breaker of that name; it is made with these parameters if there is none.

    With `keep=False` it lives only as long as somebody holds it. `clock` takes effect only when the breaker is made.
    Raises InvalidInputError, naming the parameter, for a wrong one or one that differs from the existing breaker's.
    """
    check_text("name", name, "text that is not empty", NOT_EMPTY)
    with _lock:
        breaker = _breakers.get(name)
        if breaker is None:
            breaker = _make(name, clock, parameters)
            _breakers[name] = breaker
        else:
            _check_agreement(breaker, parameters)
        if keep:
            _kept[name] = breaker
    return breaker


def breaker_states() -> dict[str, str]:
    """Return the state of each of the process's named breakers, as its next call will find it."""
    with _lock:
        return {name: str(breaker.state) for name, breaker in _breakers.items()}


def circuit_breaker(
    name: str | Callable[[Any], str] | None = None,
    failure_threshold: int = 5,
    recovery_timeout: float = 30.0,
    half_open_max_calls: int = 3,
    window_size: float = 60.0,
    *,
    exceptions: tuple[type[Exception], ...] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Reject calls of the decorated function, sync or async, with CircuitOpenError while its breaker is open.

    See CircuitBreaker for the parameters. The same name in one process is the same breaker; without one, the name is
    the function's module and qualified name. `name` may be a callable: it gets the call's first positional argument
    and returns the name, and the breaker lives as long as one of those arguments.

    Raises InvalidInputError at decoration for a wrong parameter or one that differs from the existing breaker's.
    """
    parameters: BreakerParameters = {
        "failure_threshold": failure_threshold,
        "recovery_timeout": recovery_timeout,
        "half_open_max_calls": half_open_max_calls,
        "window_size": window_size,
        "exceptions": exceptions,
    }
    if callable(name):
        CircuitBreaker("only to check the parameters", **parameters)

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        if not callable(fn):
            raise refused("name", "a name or a callable", "the decorated function", "write @circuit_breaker()")
        if callable(name):
            return _guard(fn, _BreakerFinder(name, parameters).find)
        fixed_name = f"{fn.__module__}.{qualified_name(fn)}" if name is None else name
        breaker = get_breaker(fixed_name, **parameters)
        return _guard(fn, lambda _: breaker)

    return decorate


class _BreakerFinder:
    """Finds the breaker of a call by its first argument, and ties the breaker's life to that argument."""

    def __init__(self, name_of: Callable[[Any], str], parameters: BreakerParameters) -> None:
        self._name_of = name_of
        self._parameters = parameters
        self._held: dict[int, tuple[weakref.ref[object], CircuitBreaker]] = {}

    def find(self, args: tuple[object, ...]) -> CircuitBreaker:
        if not args:
            expected = "a call with a positional argument, from which the callable makes the name"
            raise refused("name", expected, "a call without one", "pass the first argument by position")
        owner = args[0]
        name = self._name_of(owner)
        held = self._held.get(id(owner))
        if held is not None and held[1].name == name:
            return held[1]
        return self._hold(owner, name)

    def _hold(self, owner: object, name: str) -> CircuitBreaker:
        breaker = get_breaker(name, keep=False, **self._parameters)
        key = id(owner)
        held = self._held

        def forget(_: weakref.ref[object]) -> None:
            held.pop(key, None)

        try:
            held[key] = (weakref.ref(owner, forget), breaker)
        except TypeError:
            expected = "a first argument that can be weakly referenced, from which the callable makes the name"
            raise refused("name", expected, type_name(owner), "give text as the name") from None
        return breaker


def _guard(fn: Callable[P, R], find: Callable[[tuple[object, ...]], CircuitBreaker]) -> Callable[P, R]:
    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def wrapper_async(*args: P.args, **kwargs: P.kwargs) -> object:
            return await find(args).run_async(fn, args, kwargs)

        return cast("Callable[P, R]", wrapper_async)

    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return find(args).run(fn, args, kwargs)

    return wrapper


def _make(name: str, clock: Clock | None, parameters: BreakerParameters) -> CircuitBreaker:
    if clock is None:
        return CircuitBreaker(name, **parameters)
    return CircuitBreaker(name, **parameters, clock=clock)


def _check_agreement(breaker: CircuitBreaker, parameters: BreakerParameters) -> None:
    for field, value in parameters.items():
        given = (Exception,) if value is None else value
        existing = getattr(breaker, field)
        if given != existing:
            expected = f"{_told(existing)}, as circuit breaker {breaker.name!r} already has"
            raise refused(field, expected, _told(given), "give the same value or another name")


def _told(value: object) -> str:
    return f"({', '.join(kind.__qualname__ for kind in value)})" if isinstance(value, tuple) else shown(value)
