"""Callables by name: registered ones, and functions that `imports` finds in application modules."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from queue_system.errors import UnresolvableNameError
from queue_system.forking import renew_in_children
from queue_system.imports.main import MAIN_NAMES, main_module_name, name_of_main
from queue_system.imports.policy import Application
from queue_system.model.lazy import check_not_lazy
from queue_system.model.local import MOST_SETTLED, LocalCallables
from queue_system.validation import check_callable, refused, shown, type_name

Processor = Callable[..., Any]

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
_NAME = re.compile(r"[^\W\d]\w*\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """How an item names a callable."""

    name: str
    module: str | None = None

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.module else self.name


def parse_reference(text: str, field_name: str) -> Reference:
    """Turn `"package.module.function"`, `"package.module:function"` or `"function"` into a reference, unresolved."""
    module, dot, name = text.replace(":", ".").rpartition(".")
    if not _NAME.match(name) or (dot and not _MODULE.match(module)):
        way_out = "use 'package.module.function' or 'function'"
        raise refused(field_name, "the name of a function", shown(text), way_out)
    if module in MAIN_NAMES:
        expected = "a module's own name, since __main__ is another script in each process"
        raise refused(field_name, expected, shown(text))
    return Reference(name, module or None)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Registry:
    """The callables of one configuration. Thread-safe."""

    application: Application = field(default_factory=Application)
    local: LocalCallables = field(default_factory=LocalCallables)
    """The closures and methods that were enqueued here."""
    _callables: dict[tuple[str | None, str], Processor] = field(default_factory=dict)
    _references: dict[Processor, Reference] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)  # a signal handler may enqueue, too

    def __post_init__(self) -> None:
        renew_in_children(self)

    def renew(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def register(self, fn: Processor, name: str | None = None, module: str | None = None) -> Reference:
        """Register a callable under its own or the given name and return how items name it; it replaces another."""
        check_callable("callback", fn)
        check_not_lazy(fn, "callback")
        reference = Reference(name or _name_of(fn, "callback").rpartition(".")[2], module or _module_of(fn))
        self._callables[reference.module, reference.name] = fn
        return reference

    def reference(self, callable_or_name: Processor | str, field_name: str) -> Reference:
        """Return how items name a callable, which is registered, or a name, which is taken as it stands.

        A function of a module replaces the one of that name, as a reload does. A further closure or method of the same
        name gets a suffix of its own, since both may be enqueued.

        Raises:
            InvalidInputError: it is neither a callable nor a usable name; `field_name` is named.
        """
        if isinstance(callable_or_name, str):
            return parse_reference(callable_or_name, field_name)
        fn = callable_or_name
        try:
            known = self._references.get(fn)
        except TypeError:  # it has no hash
            known = None
        if known is not None and self._callables.get((known.module, known.name)) == fn:
            return known
        if not callable(fn):
            raise refused(field_name, "a callable or the name of one", shown(fn))
        if (key := self.local.name_of(fn)) is not None:
            return Reference(key[1], key[0])
        check_not_lazy(fn, field_name)
        name = _name_of(fn, field_name)
        module = getattr(fn, "__module__", None)
        if module in MAIN_NAMES:
            for (under, alias), registered in list(self._callables.items()):
                if registered is fn:  # by `register`: so it is found under that, wherever it was defined
                    return Reference(alias, under)
            module = name_of_main(fn, name, field_name)
        if not _NAME.match(name):
            module, name = self.local.add(fn, module, name)
            return Reference(name, module)
        return self._know(fn, Reference(name, module))

    def _know(self, fn: Processor, reference: Reference) -> Reference:
        """Know a module's function, in the place of another that had its name."""
        with self._lock:
            former = self._callables.get((reference.module, reference.name))
            with contextlib.suppress(TypeError, KeyError):  # it has no hash, or was registered
                del self._references[former]  # type: ignore[arg-type]  # None is none of them
            self._callables[reference.module, reference.name] = fn
            with contextlib.suppress(TypeError):  # it has no hash
                self._references[fn] = reference
        return reference

    def known(self, name: str, module: str | None) -> Processor | None:
        """Return the callable that an item names if no import is needed for it."""
        key = (module, name)
        try:
            return self._callables[key]
        except KeyError:
            pass
        try:
            return self.local.known[key].fn
        except KeyError:
            return self._by_name_alone(name) if module is None else None

    def resolve(self, name: str, module: str | None) -> Processor:
        """Return the callable that an item names; blocks for as long as an import takes.

        Raises:
            UnresolvableNameError: nothing is registered under it, and it leads to no function that may be imported.
            ImportFailedError: its module raised while it was imported.
        """
        fn = self.known(name, module)
        if fn is None and self.local.was_known((module, name)):
            raise UnresolvableNameError(
                f"{Reference(name, module)} was enqueued by this process, which has forgotten it: of closures and"
                f" methods whose operations are settled it keeps the newest {MOST_SETTLED}; use a module-level function"
            )
        if fn is None:
            fn = self._callables[module, name] = self.application.import_function(name, module)
        return fn

    def _by_name_alone(self, name: str) -> Processor | None:
        found = {id(fn): fn for (_, known), fn in list(self._callables.items()) if known == name}
        found |= {id(local.fn): local.fn for (_, known), local in list(self.local.known.items()) if known == name}
        return next(iter(found.values())) if len(found) == 1 else None


def _name_of(fn: Processor, field_name: str) -> str:
    qualname = getattr(fn, "__qualname__", None)
    if not isinstance(qualname, str):
        way_out = "register it with register_callback(fn, name=...) and use that name"
        raise refused(field_name, "a callable that has a name", type_name(fn), way_out)
    return qualname


def _module_of(fn: Processor) -> str | None:
    module = getattr(fn, "__module__", None)
    return main_module_name() if module in MAIN_NAMES else module
