"""What an application writes to wrap the attempts of its workers, and the operation as that sees it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from queue_system.model.trace import Tracing
from queue_system.validation import check_list, refused, shown

_FIELD: Final = "middleware"
_METHODS: Final = {
    "around": "operation, call_next",
    "on_start": "operation",
    "on_success": "operation, result",
    "on_failure": "operation, error",
    "on_retry": "operation, error, delay",
}
"""The methods that an entry may have, and what each is called with."""

AROUND: Final = "around"


class RunningOperation(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of an operation, as middleware sees it. It cannot be changed; times are in s."""

    operation_id: str
    processor: str
    """`"module.function"`."""
    queue: str
    priority: str
    entity: Any
    """What the processor receives; for a callback, its `data`. None where it cannot be read."""
    attempt: int
    """1 for the first."""
    max_attempts: int
    timeout: float | None
    """Limit of this attempt, middleware included; None where it cannot begin."""
    enqueued_at: float | None
    """Unix seconds of the server's clock; None where the item does not say."""
    deduplication_key: str
    phase: str
    """Empty for the processor; `"on_success"` or `"on_failure"` for a callback."""
    worker_id: str
    """The name of this life of the worker, as in `manager.list_workers()`."""

    def with_entity(self, entity: Any) -> RunningOperation:
        """Return a copy with another entity, for `call_next`."""
        return replace(self, entity=entity)


CallNext = Callable[[RunningOperation], Awaitable[Any]]
"""What `around` awaits: the rest of the chain, and the processor at its end."""


class Middleware:
    """A base for middleware: each method may be left out. One object serves all attempts, which run side by side.

    `around` is async. A hook is async, or sync and then runs in a thread; what it raises is logged and changes nothing.
    Hooks hear of processors, not of callbacks.
    """

    async def around(self, operation: RunningOperation, call_next: CallNext, /) -> Any:
        """Surround an attempt: return what `await call_next(operation)` returns, or another result, or raise.

        What it raises counts as raised by the processor. It runs within the limit of the attempt, for callbacks, too.
        """
        return await call_next(operation)

    def on_start(self, operation: RunningOperation, /) -> Awaitable[None] | None:
        """Called when an attempt begins. It counts against the limit of the attempt."""

    def on_success(self, operation: RunningOperation, result: Any, /) -> Awaitable[None] | None:
        """Called when the operation is done."""

    def on_failure(self, operation: RunningOperation, error: BaseException, /) -> Awaitable[None] | None:
        """Called when the operation is not tried again: it is among the failures or the system errors."""

    def on_retry(self, operation: RunningOperation, error: BaseException, delay: float, /) -> Awaitable[None] | None:
        """Called when the attempt went wrong and another follows after `delay` s."""


class Wrapping(msgspec.Struct, frozen=True):
    """What wraps the attempts of a configuration's workers, from the outside in."""

    tracing: Tracing | None
    middleware: Sequence[Any]


def make_wrapping(tracing: Tracing | None, middleware: Sequence[Any]) -> Wrapping | None:
    """Return what wraps attempts; None where nothing does."""
    return Wrapping(tracing, middleware) if tracing is not None or middleware else None


def check_middleware(entries: Any) -> tuple[Any, ...]:
    """Return what may be `QueueConfig(middleware=...)`. Raises InvalidInputError."""
    checked = tuple(check_list(_FIELD, entries, "a list of middleware"))
    for entry in checked:
        methods_of(entry)
    return checked


def methods_of(entry: Any) -> dict[str, Callable[..., Any]]:
    """Return which methods of middleware an entry has, by name; a function is an `around`. Raises InvalidInputError."""
    if isinstance(entry, type):
        raise refused(_FIELD, "an object", shown(entry), f"pass an instance, such as {entry.__qualname__}()")
    methods = {name: method for name in _METHODS if (method := _method_of(entry, name)) is not None}
    if not methods and callable(entry) and not isinstance(entry, Middleware):
        methods = {AROUND: entry}
    if not methods:
        known = ", ".join(_METHODS)
        raise refused(_FIELD, f"an object with one of the methods {known}", shown(entry), "or an async function")
    for name, method in methods.items():
        _check_method(name, method)
    return methods


def name_of(entry: Any) -> str:
    """Return the name of an entry, for the log."""
    return str(getattr(entry, "__name__", type(entry).__name__))


def is_async(function: Any) -> bool:
    """Return whether calling a function returns a coroutine."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object's own coroutine method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _method_of(entry: Any, name: str) -> Any:
    method = getattr(entry, name, None)
    inherited = getattr(method, "__func__", None) is vars(Middleware)[name]
    return None if inherited else method


def _check_method(name: str, method: Any) -> None:
    arguments = _METHODS[name]
    call = f"{name}({arguments})"
    if not callable(method):
        raise refused(_FIELD, f"{call} to be a function", shown(method))
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        way_out = "await call_next(operation) instead of yielding" if name == AROUND else "let it return, not yield"
        raise refused(_FIELD, f"{call} to be a function", f"generator {shown(method)}", way_out)
    if name == AROUND and not is_async(method):
        raise refused(_FIELD, f"an async {call}", shown(method), "write async def, and await call_next(operation)")
    try:
        inspect.signature(method).bind(*arguments.split(", "))
    except TypeError:
        raise refused(_FIELD, call, f"{shown(method)} with other parameters") from None
    except ValueError:
        pass  # its parameters cannot be learned
