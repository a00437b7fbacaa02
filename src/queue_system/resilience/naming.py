"""The names of functions, for messages, notes and threads."""

from __future__ import annotations

from collections.abc import Callable


def qualified_name(fn: Callable[..., object]) -> str:
    """Return the name of a function, such as `QueueManager.enqueue`; its repr if it has no name."""
    return str(getattr(fn, "__qualname__", None) or repr(fn))
