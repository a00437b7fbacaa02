"""Finds the file of a module without importing it or a package above it."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from queue_system.errors import UnresolvableNameError
from queue_system.imports.libraries import forms, real

_UTILS: Final = Path(__file__).parents[2] / "utils" / "__init__.py"


@dataclass(frozen=True, slots=True)
class Found:
    """A module of Python source."""

    name: str
    file: str
    """Where it lies, as its finder says: symlinks are not resolved, and it may be an entry of a zip file."""
    in_namespace: bool
    """Whether its top-level package is a folder without `__init__.py`."""
    loader: Any
    is_main: bool = False
    """Whether it is the running script."""

    @property
    def is_package(self) -> bool:
        """Whether it is a package's `__init__.py`."""
        return Path(self.file).name == "__init__.py"

    @property
    def top(self) -> Path:
        """The folder that holds its top-level module."""
        return top_folder(self.name, self.file)


def find_module(name: str) -> Found:
    """Return where a module lies.

    Raises:
        UnresolvableNameError: there is no such module, or it is not Python source.
    """
    specs = _specs(name)
    origin = specs[-1].origin
    if not specs[-1].has_location or origin is None or not origin.endswith(".py"):
        raise UnresolvableNameError(
            f"module {name!r:.120} is not a file of Python source; register what it has with config.register_callback"
        )
    return Found(name, origin, specs[0].loader is None, specs[-1].loader)


def exists(name: str) -> bool:
    """Whether a module can be found, or is imported already; a folder without `__init__.py` is one, too."""
    try:
        return name in sys.modules or bool(_specs(name))
    except UnresolvableNameError:
        return False


def _specs(name: str) -> list[ModuleSpec]:
    """Return what the finders say of a module, after each package above it. Raises UnresolvableNameError."""
    parts = name.split(".")
    search: Iterable[str] | None = None
    specs: list[ModuleSpec] = []
    for depth in range(1, len(parts) + 1):
        part = ".".join(parts[:depth])
        spec = None if depth > 1 and search is None else _find_spec(part, search)
        if spec is None:
            raise UnresolvableNameError(f"module {part!r:.120} cannot be found on sys.path")
        specs.append(spec)
        search = _search_path(part, spec)
    return specs


def top_folder(name: str, file: str) -> Path:
    """Return the folder that holds the top-level module of a module, or the file's own where names and paths differ."""
    path = forms(file)[0].with_suffix("")
    if path.name == "__init__":
        path = path.parent
    parts = tuple(name.split("."))
    return path.parents[len(parts) - 1] if path.parts[-len(parts) :] == parts else path.parent


def same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to one file."""
    return real(one) == real(other)


def _find_spec(name: str, search: Iterable[str] | None) -> ModuleSpec | None:
    """Do what the import system does, without its need for the packages above to be imported.

    Of its finders, only those count that look into folders, and those that stand behind, as editable installs do.
    """
    finders = iter(sys.meta_path)
    if not any(finder is PathFinder for finder in finders):
        return None
    portions: list[str] = []
    for found in _in_folders(name, sys.path if search is None else search):
        if found.loader is not None:
            return found
        portions += found.submodule_search_locations or ()
    if portions:
        namespace = ModuleSpec(name, None, is_package=True)
        namespace.submodule_search_locations = portions
        return namespace
    for finder in finders:
        if (spec := _ask(finder, name, search)) is not None:
            return spec
    return None


def _in_folders(name: str, folders: Iterable[str]) -> Iterator[ModuleSpec]:
    for folder in list(folders):
        finder = pkgutil.get_importer(folder or str(Path.cwd()))
        if finder is not None and (spec := _ask(finder, name)) is not None:
            yield spec


def _ask(finder: Any, *arguments: Any) -> ModuleSpec | None:
    try:
        spec = finder.find_spec(*arguments)
    except Exception:  # noqa: BLE001 - a finder of another package's; what it cannot find is not there
        return None
    return spec if isinstance(spec, ModuleSpec) else None


def _search_path(name: str, spec: ModuleSpec) -> Iterable[str] | None:
    """Return where a package's modules lie; an imported one may have extended its path."""
    module = sys.modules.get(name)
    if name == "utils" and spec.origin is not None and same_file(spec.origin, _UTILS):
        extended = pkgutil.extend_path(list(spec.submodule_search_locations or ()), name)  # as ours does when imported
        if module is not None:
            module.__path__ = extended  # sys.path may have grown since then
        return extended
    if isinstance(module, ModuleType) and spec.origin is not None and getattr(module, "__file__", None) == spec.origin:
        path = getattr(module, "__path__", None)
        return None if path is None else list(path)
    return spec.submodule_search_locations
