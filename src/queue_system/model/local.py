"""Closures, lambdas and methods by name, which only this process can know; their number is bounded."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from queue_system.errors import InvalidInputError
from queue_system.forking import renew_in_children
from queue_system.model.operation import Operation

MOST_QUEUED: Final = 100_000
"""How many callables operations may name that are not known to be settled; each is kept."""
MOST_SETTLED: Final = 1000
"""How many are kept whose operations are settled, for a retry of a dead letter."""

Key: TypeAlias = tuple[str | None, str]
"""A module and a name."""


@dataclass(slots=True)
class Local:
    """A callable that this process has enqueued."""

    fn: Callable[..., Any]
    queued: int = 0
    """How many operations of this process name it and are not known to be settled."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class LocalCallables:
    """Keeps what this process has enqueued for as long as an operation needs it. Thread-safe.

    What no operation names any longer goes when there are more than `MOST_SETTLED` of the kind, the oldest first. What
    one may still name never goes; beyond `MOST_QUEUED` of them, a further one is refused.
    """

    counts: dict[Key, int] = field(default_factory=dict)
    """How many callables have had each name; empty as long as there was none at all."""
    known: dict[Key, Local] = field(default_factory=dict)
    _settled: OrderedDict[Key, None] = field(default_factory=OrderedDict)
    """Those that no operation names any longer, the oldest first."""
    _names: dict[Callable[..., Any], Key] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)  # a signal handler may enqueue, too

    def __post_init__(self) -> None:
        renew_in_children(self)

    def renew(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def name_of(self, fn: Callable[..., Any]) -> Key | None:
        """Return the name under which a callable is known."""
        try:
            return self._names.get(fn)
        except TypeError:  # it has no hash
            return None

    def add(self, fn: Callable[..., Any], module: str | None, name: str) -> Key:
        """Know a callable; one of a name that was taken before gets a suffix of its own, since both may be queued."""
        with self._lock:
            count = self.counts[module, name] = self.counts.get((module, name), 0) + 1
            key = (module, name if count == 1 else f"{name}#{count}")
            self.known[key] = Local(fn)
            self._settled[key] = None
            with contextlib.suppress(TypeError):  # it has no hash
                self._names[fn] = key
            self._trim()
            return key

    def was_known(self, key: Key) -> bool:
        """Return whether this process has used a name before."""
        name, _, number = key[1].partition("#")
        known = self.counts.get((key[0], name), 0)
        return known >= 1 if not number else number.isdecimal() and len(number) < 12 and int(number) <= known  # noqa: PLR2004

    def hold(self, operation: Operation, operations: int = 1) -> None:
        """Note how many operations that are about to be sent name the same callables as this one.

        Raises:
            InvalidInputError: that would be too many callables, or very many were enqueued since it was described.
        """
        if not operations:
            return
        with self._lock:
            names = [key for key in _named_by(operation) if self.was_known(key)]
            if any(key not in self.known for key in names):
                raise InvalidInputError(
                    "processor", "this callable was forgotten while it was being enqueued; enqueue it again"
                )
            fresh = [key for key in names if key in self._settled]
            if fresh and len(self.known) - len(self._settled) + len(fresh) > MOST_QUEUED:
                raise InvalidInputError(
                    "processor",
                    f"{MOST_QUEUED:,} closures and methods that this process has enqueued are not known to be settled;"
                    " use a function at the top level of a module, which every worker finds by its name",
                )
            for key in fresh:
                del self._settled[key]
            for key in names:
                self.known[key].queued += operations

    def release(self, operation: Operation, operations: int = 1) -> None:
        """Note how many operations are settled, or were never added."""
        with self._lock:
            if operation.on_success is operation.on_failure is None:
                try:
                    local = self.known[operation.processor_module, operation.processor]
                except KeyError:
                    return
                if local.queued > operations:
                    local.queued -= operations
                    return
            for key in _named_by(operation):
                if key in self.known:
                    local = self.known[key]
                    local.queued = max(0, local.queued - operations)
                    if not local.queued:
                        self._settled[key] = None
            self._trim()

    def _trim(self) -> None:
        while len(self._settled) > MOST_SETTLED:
            key, _ = self._settled.popitem(last=False)
            fn = self.known.pop(key).fn
            if self.name_of(fn) == key:
                del self._names[fn]


def _named_by(operation: Operation) -> set[Key]:
    names = {(operation.processor_module, operation.processor)}
    if operation.on_success is not None:
        names.add((operation.on_success_module, operation.on_success))
    if operation.on_failure is not None:
        names.add((operation.on_failure_module, operation.on_failure))
    return names
