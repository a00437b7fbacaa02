"""Which functions a name from Redis may lead to, and their import. Checks all that it can before any import."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from queue_system.errors import ImportFailedError, UnresolvableNameError
from queue_system.imports.libraries import (
    FOREIGN_FOLDERS,
    foreign_part,
    in_standard_library,
    is_environment,
    library_of,
    real,
    standard_library_paths,
)
from queue_system.imports.main import MAIN_NAMES, find_main, main_folder, main_module, main_module_name
from queue_system.imports.modules import Found, exists, find_module, same_file
from queue_system.imports.sources import defines
from queue_system.validation import shown, type_name

_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
_NAME: Final = re.compile(r"[^\W\d]\w*\Z")
_DUNDER: Final = re.compile(r"__.*__\Z")
_OWN: Final = __name__.partition(".")[0]
_NEVER: Final = sys.stdlib_module_names | frozenset(sys.builtin_module_names) | {_OWN}


def never_imported(module_name: str) -> bool:
    """Whether a module has the name of one that is never imported by name: of the standard library, or ours."""
    return module_name.partition(".")[0] in _NEVER


def _roots() -> list[Path]:
    roots = [folder] if (folder := main_folder()) is not None else []
    with contextlib.suppress(OSError):  # the current folder is gone
        roots.append(Path.cwd())
    return roots


@dataclass(slots=True)
class Application:
    """What is application code: the folders of the running script and of the worker's target, and the current one.

    The current folder is the one in which the process was when this was made, wherever it goes later.
    """

    allowed_modules: tuple[str, ...] | None = None
    _roots: list[Path] = field(default_factory=_roots)

    def add_folder(self, folder: Path) -> None:
        """Take a folder for one of the application's own, too."""
        self._roots.append(folder)

    def import_function(self, name: str, module_name: str | None) -> Any:
        """Import the function that a name means, if it may be imported. Blocks for as long as the import takes.

        Raises:
            UnresolvableNameError: it may not, or it surely does not exist; nothing was imported that defines no
                function of that name.
            ImportFailedError: its module raised while it was imported.
        """
        reference = f"{module_name}.{name}" if module_name else name
        module_name = _checked(reference, name, module_name)
        found = self.find(module_name)
        if not _may_define(found, name):
            if found.is_package and main_module_name() == f"{module_name}.__main__":
                return self.import_function(name, f"{module_name}.__main__")  # as older versions named it
            raise UnresolvableNameError(f"module {module_name!r} has no function {shown(name)} in its source")
        return _function_of(_load(found), found, name)

    def find(self, module_name: str) -> Found:
        """Return where a module lies that may be imported; imports nothing. Raises UnresolvableNameError."""
        top = module_name.partition(".")[0]
        main = None if top == _OWN or module_name in MAIN_NAMES else find_main(module_name)
        if main is None and (top in _NEVER or module_name in MAIN_NAMES):
            raise UnresolvableNameError(
                f"module {module_name!r} is not application code: {top!r} is never imported by name"
            )
        allowed = self._allowed_by(module_name)
        found = find_module(module_name) if main is None else main
        if in_standard_library(found.file):
            raise UnresolvableNameError(f"module {module_name!r} is not application code: it is the standard library's")
        problem = self._foreign(found) if allowed is None else _vendored(module_name.removeprefix(allowed))
        if problem is not None:
            raise UnresolvableNameError(
                f"module {module_name!r} is not application code: {problem}; if it is yours, name it in"
                " QueueConfig(allowed_modules)"
            )
        return found

    def _allowed_by(self, module_name: str) -> str | None:
        """Return the longest entry of `allowed_modules` that a module falls under; None without that setting."""
        if self.allowed_modules is None:
            return None
        entries = [entry for entry in self.allowed_modules if f"{module_name}.".startswith(f"{entry}.")]
        if not entries:
            raise UnresolvableNameError(
                f"module {module_name!r} is not among allowed_modules ({', '.join(self.allowed_modules) or 'none'})"
            )
        return max(entries, key=len)

    def _foreign(self, found: Found) -> str | None:
        """Say why a module is not the application's; None when it is."""
        if (library := library_of(found.file)) is not None:
            return f"it is an installed package in {library}"
        crowded: Path | None = None
        for root in self._roots:
            if library_of(root) is None and real(found.file).is_relative_to(real(root)):
                if _is_close(found, root):
                    return foreign_part(found.file, root, found.top)
                crowded = root
        if crowded is not None:
            return (
                f"{found.file} lies deep in {crowded}, which holds Python itself; run the worker in a folder of its own"
            )
        return f"{found.file} lies neither in the worker's current folder nor in that of its target"


def missing_modules(names: Iterable[str]) -> list[str]:
    """Return those of some names under which there is no module; imports nothing, but looks into folders."""
    return [name for name in names if find_main(name) is None and not exists(name)]


def _is_close(found: Found, root: Path) -> bool:
    """Whether a root holds the application alone, or the module lies right in it.

    A folder such as `/` or a home, in which Python itself lies, too, is full of other people's files: only a module or
    package that lies right in it is the application's.
    """
    root = real(root)
    if root != root.parent and not any(_holds_system(root, library) for library in standard_library_paths()):
        return True
    return not found.in_namespace and real(found.top) == root


def _holds_system(root: Path, library: Path) -> bool:
    """Whether a library lies below a root, other than in an environment that an application has for itself."""
    return library.is_relative_to(root) and not any(
        is_environment(folder) for folder in library.parents if root in folder.parents
    )


def _checked(reference: str, name: str, module_name: str | None) -> str:
    """Return the module's name of a reference that may mean a function of a module."""
    if not _NAME.match(name):
        kind = "a lambda" if "<lambda>" in name else "a closure" if "<locals>" in name else "not a function of a module"
        raise UnresolvableNameError(
            f"{reference} is {kind}: only the process that enqueued it knows it; use a module-level function"
        )
    if module_name is None:
        raise UnresolvableNameError(f"{shown(name)} is not registered here, and without a module it cannot be imported")
    parts = module_name.removesuffix(".__main__").split(".")
    if not _MODULE.match(module_name) or any(_DUNDER.match(part) for part in (*parts, name)):
        raise UnresolvableNameError(f"{reference!r:.120} does not name a function of a module")
    return module_name


def _vendored(rest: str) -> str | None:
    """Say what is foreign in a module's name below the entry of `allowed_modules` that it falls under."""
    foreign = FOREIGN_FOLDERS & set(rest.split("."))
    return f"{min(foreign)!r} is a folder for other people's code" if foreign else None


def _may_define(found: Found, name: str) -> bool:
    try:
        return defines(found, name)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True  # its import will raise the same, before it runs a line, and say more
    except OSError as error:
        raise ImportFailedError(f"module {found.name!r} cannot be read: {error}") from error


def _load(found: Found) -> ModuleType:
    """Import a module, and make sure that it is the one that was looked at."""
    if found.is_main and (main := main_module()) is not None:
        return main
    try:
        module: object = importlib.import_module(found.name)
    except BaseException as error:
        raise ImportFailedError(
            f"module {found.name!r} cannot be imported: {type(error).__name__}: {_text(error)}"
        ) from error
    if not issubclass(type(module), ModuleType):
        raise UnresolvableNameError(f"module {found.name!r}: expected a module in sys.modules, got {type_name(module)}")
    own = vars(module)
    if own.get("__name__") != found.name or not same_file(str(own.get("__file__")), found.file):
        raise UnresolvableNameError(f"module {found.name!r}: another module has this name: {own.get('__name__')!r:.80}")
    return module  # type: ignore[return-value]  # checked by its type, since `__class__` may say anything


def _function_of(module: ModuleType, found: Found, name: str) -> Any:
    reference = f"{found.name}.{name}"
    fn = vars(module).get(name)
    if fn is None:
        raise UnresolvableNameError(f"module {found.name!r} has no function {shown(name)}")
    if not isinstance(fn, FunctionType):
        raise UnresolvableNameError(f"{reference}: expected a plain function, got {type_name(fn)}")
    own = getattr(inspect.unwrap(fn), "__globals__", {})
    if own is not vars(module) and not (found.is_main and _is_of_main(own, found)):
        raise UnresolvableNameError(f"{reference} is defined elsewhere; name it by the module that defines it")
    return fn


def _is_of_main(own: dict[str, Any], found: Found) -> bool:
    """Whether a function's globals are those of the running script: multiprocessing gives a child a copy of them."""
    return own.get("__name__") in MAIN_NAMES and same_file(str(own.get("__file__")), found.file)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - a hostile __str__
        return "its text cannot be read"
