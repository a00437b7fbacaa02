"""Callables by name: registered ones, and functions of application modules. Never imports what the policy forbids.

The policy stands in docs/security.md. Everything is checked before an import that can be; the rest after it.
"""

from __future__ import annotations

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

from queue_system.errors import InvalidInputError, UnresolvableNameError

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
    module, _, name = text.replace(":", ".").rpartition(".")
    if not _NAME.match(name) or (module and not _MODULE.match(module)):
        raise InvalidInputError(field_name, f"{text!r:.80} is no name; use 'package.module.function' or 'function'")
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


@dataclass(slots=True)
class Registry:
    """The callables of one configuration. Thread-safe."""

    allowed_modules: tuple[str, ...] | None = None
    _callables: dict[tuple[str | None, str], Processor] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def register(self, fn: Processor, name: str | None = None, module: str | None = None) -> Reference:
        """Register a callable under its own or the given name and return how items name it.

        A function of a module replaces the one of that name, as a reload does. A further closure of the same name
        gets a suffix of its own, since both may be enqueued.
        """
        if not callable(fn):
            raise InvalidInputError("callback", f"{fn!r:.80} is not callable")
        own_name, own_module = name or _name_of(fn), module or _module_of(fn)
        reference = Reference(own_name, own_module)
        key = (own_module, own_name)
        known = self._callables.get(key)
        if known is fn:
            return reference
        with self._lock:
            if name is None and "<" in own_name:
                suffix = 2
                while (known := self._callables.get(key)) is not None and known is not fn:
                    key = (own_module, f"{own_name}#{suffix}")
                    suffix += 1
            self._callables[key] = fn
        return Reference(key[1], key[0])

    def reference(self, callable_or_name: Processor | str, field_name: str) -> Reference:
        """Return how items name a callable, which is registered, or a name, which is taken as it stands.

        Raises:
            InvalidInputError: it is neither a callable nor a usable name; `field_name` is named.
        """
        if isinstance(callable_or_name, str):
            return parse_reference(callable_or_name, field_name)
        if not callable(callable_or_name):
            raise InvalidInputError(field_name, f"{callable_or_name!r:.80} is neither a callable nor a name")
        return self.register(callable_or_name)

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
    if "<" in name:
        kind = "a lambda" if "<lambda>" in name else "a closure"
        raise UnresolvableNameError(
            f"{reference} is {kind}: it exists only in the process that enqueued it; use a module-level function"
        )
    if module_name is None:
        raise UnresolvableNameError(f"{name!r} is not registered here, and without a module it cannot be imported")
    if not _NAME.match(name) or (name.startswith("__") and name.endswith("__")) or not _MODULE.match(module_name):
        raise UnresolvableNameError(f"{str(reference)!r:.120} is no name of a module's function")
    check_module_allowed(module_name, allowed_modules)
    module = _import(module_name)
    fn = vars(module).get(name)
    if fn is None:
        raise UnresolvableNameError(f"module {module_name!r} has no function {name!r}")
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


def _name_of(fn: Processor) -> str:
    qualname = getattr(fn, "__qualname__", None)
    if not isinstance(qualname, str):
        raise InvalidInputError(
            "processor",
            f"a {type(fn).__name__} has no name; register it by register_callback(fn, name=...) and use that",
        )
    return qualname if "<" in qualname else str(getattr(fn, "__name__", qualname))


def _module_of(fn: Processor) -> str | None:
    module = getattr(fn, "__module__", None)
    return main_module_name() if module == "__main__" else module
