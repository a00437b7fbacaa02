"""Which processors run in a child process: the mark that a developer puts on them. Never starts a process."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

from queue_system.errors import InvalidInputError, shown
from queue_system.model.registry import Reference, main_module_name

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "__queue_system_process__"


def run_in_process(processor: F) -> F:
    """Mark a sync function of a module, as a decorator: workers run it in a child process, one operation at a time.

    The child is really killed at the operation's time limit or when the worker must go, and replaced; so is one that
    crashes. Entity and result travel as JSON. The function itself is unchanged for whoever calls it.

    Raises:
        InvalidInputError: it is async, or no function of an importable module, so that a child could not find it.
    """
    if inspect.iscoroutinefunction(processor):
        raise InvalidInputError("processor", f"{shown(processor)} is async; only a sync function runs in a process")
    name, module = getattr(processor, "__qualname__", ""), getattr(processor, "__module__", None)
    if module == "__main__":
        module = main_module_name()
    if not inspect.isfunction(processor) or not name.isidentifier() or module is None:
        raise InvalidInputError(
            "processor", f"{shown(processor)} is no function of an importable module; a child process cannot find it"
        )
    setattr(processor, _MARK, Reference(name, module))
    return processor


def process_reference(processor: Callable[..., Any]) -> Reference | None:
    """Return how a child process finds a marked processor; None for one without the mark."""
    reference = getattr(processor, _MARK, None)
    return reference if isinstance(reference, Reference) else None
