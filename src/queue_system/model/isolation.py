"""Which processors run in a child process: the mark that a developer puts on them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from queue_system.errors import InvalidInputError
from queue_system.imports.main import MAIN_NAMES, main_module, main_module_name
from queue_system.model.registry import Reference
from queue_system.validation import refused, shown

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "__queue_system_process__"


@dataclass(frozen=True, slots=True)
class _Mark:
    """What marks a processor: how a child process finds it, and it itself, since `functools.wraps` copies marks."""

    reference: Reference
    processor: Callable[..., Any]


def run_in_process(processor: F) -> F:
    """Mark a sync function of a module, as a decorator: workers run it in a child process, one operation at a time.

    The child is really killed at the operation's time limit or when the worker must go, and replaced; so is one that
    crashes. Entity and result travel as JSON. Direct calls of the function are unchanged.

    Raises:
        InvalidInputError: it is async, or not a function of an importable module, so that a child could not find it.
    """
    if inspect.iscoroutinefunction(processor):
        expected = "a sync function, since no other runs in a child process"
        raise refused("processor", expected, f"the async {shown(processor)}")
    name = getattr(processor, "__qualname__", "")
    module = getattr(processor, "__module__", None)
    if module in MAIN_NAMES:
        module = main_module_name()
    if not inspect.isfunction(processor) or not name.isidentifier() or module is None:
        expected = "a function that a child process can import"
        raise refused("processor", expected, shown(processor), "define it at the top level of a module")
    setattr(processor, _MARK, _Mark(Reference(name, module), processor))
    return processor


def process_reference(processor: Callable[..., Any]) -> Reference | None:
    """Return how a child process finds a marked processor; None for one without the mark.

    A decorator above the mark that uses `functools.wraps` is marked as well: the child finds it in the place of what it
    wraps, and runs both.

    Raises:
        InvalidInputError: its mark was copied, but another callable has its name, which a child would run instead.
    """
    mark = getattr(processor, _MARK, None)
    if not isinstance(mark, _Mark):
        return None
    if mark.processor is not processor and _named(mark.reference) is not processor:
        raise InvalidInputError(
            "processor",
            f"{shown(processor)} wraps {mark.reference}, which is marked by run_in_process, under another name: a child"
            " process would run it without the wrapper; apply the decorator to the function where it is defined",
        )
    return mark.reference


def _named(reference: Reference) -> Any:
    """Return what a child process finds under a reference, as far as this process has it."""
    module = sys.modules.get(reference.module or "")
    if module is None and reference.module == main_module_name():
        module = main_module()
    return None if module is None else vars(module).get(reference.name)
