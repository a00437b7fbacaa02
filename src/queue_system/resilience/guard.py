"""The decorator that reports an error where it leaves a method."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

from queue_system.resilience.naming import qualified_name

__all__ = ["report", "try_catch"]

P = ParamSpec("P")
R = TypeVar("R")

_LOGGER: Final = logging.getLogger("queue_system")
_NOTE_PREFIX: Final = "while running "


def try_catch(fn: Callable[P, R]) -> Callable[P, R]:
    """Log an Exception that leaves the decorated function, sync or async, add a note to it, and raise it unchanged.

    It is logged once, by the innermost decorated function it leaves: through `_log_error(operation, error)` of the
    first positional argument where that has such a method, else to the logger `queue_system`. Every decorated
    function adds its note. Cancellations and exits pass untouched.
    """
    operation = qualified_name(fn)
    if inspect.iscoroutinefunction(fn):
        return cast("Callable[P, R]", _guard_async(fn, operation))

    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            report(operation, args, error)
            raise

    return wrapper


def _guard_async(fn: Callable[P, Awaitable[Any]], operation: str) -> Callable[P, Awaitable[Any]]:
    @functools.wraps(fn)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return await fn(*args, **kwargs)
        except Exception as error:
            report(operation, args, error)
            raise

    return wrapper


def report(operation: str, args: tuple[object, ...], error: Exception) -> None:
    """Log and note an error that leaves `operation`, as `try_catch` says."""
    notes: list[str] = getattr(error, "__notes__", [])
    if not any(note.startswith(_NOTE_PREFIX) for note in notes):
        _log(operation, args, error)
    note = _NOTE_PREFIX + operation
    if note not in notes:
        error.add_note(note)


def _log(operation: str, args: tuple[object, ...], error: Exception) -> None:
    try:
        log_error = getattr(args[0], "_log_error", None) if args else None
        if callable(log_error):
            log_error(operation, error)
            return
    except Exception:  # a broken log must not hide the error it was to report
        _LOGGER.exception("the error log of %s failed", operation)
    _LOGGER.error("%s failed: %s", operation, error, exc_info=error)
