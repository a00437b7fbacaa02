"""Functions that do nothing when they are called, such as generators, and the undone work that they return."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, Final

from queue_system.validation import refused, shown

PLAIN: Final = frozenset({type(None), bool, int, float, str, dict, list, tuple})
"""The types of nearly all results, none of which is lazy."""

_LAZY: Final = (Awaitable, Generator, AsyncGenerator, Future, map, filter, itertools.starmap)


def check_not_lazy(fn: Any, field_name: str) -> None:
    """Raise InvalidInputError for a generator function of any kind: calling it runs none of its code."""
    target = fn
    while isinstance(target, functools.partial):
        target = target.func
    own = getattr(type(target), "__call__", None)  # noqa: B004 - an object's own method
    for called in (target, own):
        if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            raise refused(
                field_name,
                "a function that does its work when it is called",
                f"the generator {shown(fn)}",
                "return the result instead of yielding it",
            )


def finished(result: Any) -> Any:
    """Return a result; raise TypeError if it is work that has not been done yet, such as a generator."""
    kind = type(result)
    if kind in PLAIN or not (isinstance(result, _LAZY) or kind.__module__ == "contextlib"):
        return result
    if isinstance(result, Coroutine | Generator):
        result.close()  # else Python would warn of it, too
    raise TypeError(
        f"expected a result, got {kind.__name__}, whose code has not run; await or consume it in the processor"
    )
