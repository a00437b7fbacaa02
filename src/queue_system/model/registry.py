"""Callables by name: registered ones, and functions of application modules. Never imports what the policy forbids.

The policy stands in docs/security.md. Everything is checked before an import that can be; the rest after it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import re
import site
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from queue_system.errors import InvalidInputError, UnresolvableNameError, shown
from queue_system.forking import renew_in_children

Processor = Callable[..., Any]

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
_NAME = re.compile(r"[^\W\d]\w*\Z")
_OWN: Final = __name__.partition(".")[0]


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
        raise InvalidInputError(field_name, f"{shown(text)} is no name; use 'package.module.function' or 'function'")
    return Reference(name, module or None)


def main_module_name() -> str | None:
    """Return the importable name of the running script: that of `python -m`, or the file's stem."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        name = str(spec.name)
        return name.removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    stem = Path(file).stem if file else ""
    return stem if _NAME.match(stem) else None


@dataclass(slots=True, eq=False, weakref_slot=True)
class Registry:
    """The callables of one configuration. Thread-safe."""

    allowed_modules: tuple[str, ...] | None = None
    _callables: dict[tuple[str | None, str], Processor] = field(default_factory=dict)
    _references: dict[Processor, Reference] = field(default_factory=dict)
    _counts: dict[tuple[str | None, str], int] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)  # a signal handler may enqueue, too

    def __post_init__(self) -> None:
        renew_in_children(self)

    def renew(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def register(self, fn: Processor, name: str | None = None, module: str | None = None) -> Reference:
        """Register a callable under its own or the given name and return how items name it; it replaces another."""
        if not callable(fn):
            raise InvalidInputError("callback", f"{shown(fn)} is not callable")
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
        if not callable(fn):
            raise InvalidInputError(field_name, f"{shown(fn)} is neither a callable nor a name")
        try:
            known = self._references.get(fn)
        except TypeError:  # it has no hash
            known = None
        if known is not None and self._callables.get((known.module, known.name)) == fn:
            return known
        name, module = _name_of(fn, field_name), _module_of(fn)
        with self._lock:
            reference = Reference(name if _NAME.match(name) else self._tell_apart(name, module), module)
            self._callables[module, reference.name] = fn
            with contextlib.suppress(TypeError):  # it has no hash
                self._references[fn] = reference
        return reference

    def _tell_apart(self, name: str, module: str | None) -> str:
        """Closures and methods of one name are different callables, though nothing but this process knows them."""
        count = self._counts.get((module, name), 0) + 1
        self._counts[module, name] = count
        return name if count == 1 else f"{name}#{count}"

    def resolve(self, name: str, module: str | None) -> Processor:
        """Return the callable that an item names.

        Raises:
            UnresolvableNameError: nothing is registered under it, and it leads to no function that may be imported.
        """
        fn = self._callables.get((module, name))
        if fn is not None:
            return fn
        if module is None:
            fn = self._by_name_alone(name)
        if fn is None:
            fn = import_function(Reference(name, module), self.allowed_modules)
            self._callables[module, name] = fn
        return fn

    def _by_name_alone(self, name: str) -> Processor | None:
        found = {id(fn): fn for (_, known), fn in list(self._callables.items()) if known == name}
        return next(iter(found.values())) if len(found) == 1 else None


def import_function(reference: Reference, allowed_modules: tuple[str, ...] | None) -> Processor:
    """Import the function that a reference names, if the policy allows it; raise UnresolvableNameError if not."""
    name, module_name = reference.name, reference.module
    if not _NAME.match(name):
        kind = "a lambda" if "<lambda>" in name else "a closure" if "<locals>" in name else "no function of a module"
        raise UnresolvableNameError(
            f"{reference} is {kind}: only the process that enqueued it knows it; use a module-level function"
        )
    if module_name is None:
        raise UnresolvableNameError(f"{shown(name)} is not registered here, and without a module it cannot be imported")
    if (name.startswith("__") and name.endswith("__")) or not _MODULE.match(module_name):
        raise UnresolvableNameError(f"{str(reference)!r:.120} is no name of a module's function")
    check_module_allowed(module_name, allowed_modules)
    module = _import(module_name)
    fn = vars(module).get(name)
    if fn is None:
        raise UnresolvableNameError(f"module {module_name!r} has no function {shown(name)}")
    if not isinstance(fn, types.FunctionType):
        raise UnresolvableNameError(f"{reference} is a {type(fn).__name__}, not a plain function")
    own = inspect.unwrap(fn)
    if getattr(own, "__globals__", None) is not vars(module):
        raise UnresolvableNameError(f"{reference} is defined elsewhere; name it by the module that defines it")
    return fn


def check_module_allowed(module_name: str, allowed_modules: tuple[str, ...] | None) -> None:
    """Raise UnresolvableNameError unless the policy lets `module_name` be imported. Imports nothing itself."""
    top = module_name.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names or top == _OWN:
        raise UnresolvableNameError(
            f"module {module_name!r} is not application code: {top!r} is never imported by name"
        )
    if allowed_modules is not None:
        if any(module_name == allowed or module_name.startswith(f"{allowed}.") for allowed in allowed_modules):
            return
        raise UnresolvableNameError(f"module {module_name!r} is not among allowed_modules")
    if _installed(_places_of(module_name)):
        raise UnresolvableNameError(
            f"module {module_name!r} is an installed package; if it is yours, name it in QueueConfig(allowed_modules)"
        )


def _places_of(module_name: str) -> list[str]:
    """Return where a module's top-level package lies, without importing it."""
    if module_name == main_module_name():
        return [str(getattr(sys.modules["__main__"], "__file__", ""))]
    top = module_name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        raise UnresolvableNameError(f"module {top!r} cannot be found: {error}") from error
    if spec is None:
        raise UnresolvableNameError(f"module {top!r} cannot be found on sys.path")
    return [place for place in (spec.origin, *(spec.submodule_search_locations or ())) if place]


def _import(module_name: str) -> types.ModuleType:
    if module_name == main_module_name() and (main := sys.modules.get("__main__")) is not None:
        return main
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UnresolvableNameError(
            f"module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _installed(places: Iterable[str]) -> bool:
    roots = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    roots.add(site.getusersitepackages())
    resolved = [Path(root).resolve() for root in roots]
    return any(Path(place).resolve().is_relative_to(root) for place in places for root in resolved)


def _name_of(fn: Processor, field_name: str) -> str:
    qualname = getattr(fn, "__qualname__", None)
    if not isinstance(qualname, str):
        way_out = "register it by register_callback(fn, name=...) and use that name"
        raise InvalidInputError(field_name, f"a {type(fn).__name__} has no name; {way_out}")
    return qualname


def _module_of(fn: Processor) -> str | None:
    module = getattr(fn, "__module__", None)
    return main_module_name() if module == "__main__" else module
