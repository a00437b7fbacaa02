"""The running script under the name by which others import it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from queue_system.errors import InvalidInputError, UnresolvableNameError
from queue_system.imports.modules import Found, find_module, same_file, top_folder
from queue_system.imports.sources import defines

MAIN_NAMES: Final = ("__main__", "__mp_main__")
"""What a script calls itself; the second in a child process that multiprocessing has spawned."""


def main_module_name() -> str | None:
    """Return the importable name of the running script: that of `python -m`, or the file's stem."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name and spec.name not in MAIN_NAMES:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    stem = Path(file).stem if file else ""
    return stem if stem.isidentifier() and stem not in MAIN_NAMES else None


def main_module() -> ModuleType | None:
    """Return the running script."""
    return sys.modules.get("__main__")


def main_folder() -> Path | None:
    """Return the folder from which the running script, or the package that it belongs to, can be imported."""
    file = getattr(main_module(), "__file__", None)
    return top_folder(main_module_name() or "", file) if file else None


def find_main(name: str) -> Found | None:
    """Return the running script if `name` means that very file; None if it means another module, or nothing."""
    file = getattr(main_module(), "__file__", None)
    if not file:
        return None
    try:
        found = find_module(name)
    except UnresolvableNameError:
        if name != main_module_name():
            return None
        loader = getattr(main_module(), "__loader__", None)
        return Found(name, file, in_namespace=False, loader=loader, is_main=True)
    return replace(found, is_main=True) if same_file(found.file, file) else None


def name_of_main(fn: Callable[..., Any], name: str, field: str) -> str | None:
    """Return the module's name under which a worker finds a function of the running script.

    Raises:
        InvalidInputError: none finds it; the reason is told.
    """
    module_name = main_module_name()
    own = inspect.unwrap(fn)
    if not isinstance(own, FunctionType) or not name.isidentifier():
        return module_name  # a closure or an object, which only this process knows in any case
    file = getattr(main_module(), "__file__", None)
    if file is None:
        raise _refusal(field, name, "was defined in an interactive session or a script without a file")
    code = Path(own.__code__.co_filename)
    if not (same_file(code, file) if code.is_absolute() else code.name == Path(file).name):
        raise _refusal(field, name, f"was not defined in the running script {file}, but in {code}")
    if module_name is None:
        raise _refusal(field, name, f"was defined in {file}, whose name cannot be imported")
    main = find_main(module_name)
    if main is None:
        raise _refusal(field, name, f"was defined in {file}, but {module_name!r} means another file")
    if _surely_lacks(main, name):
        raise _refusal(field, name, f"is not a function that {file} defines at its top level")
    return module_name


def _surely_lacks(main: Found, name: str) -> bool:
    try:
        return not defines(main, name)
    except Exception:  # noqa: BLE001 - whatever hides the source, the script is running
        return False


def _refusal(field: str, name: str, problem: str) -> InvalidInputError:
    return InvalidInputError(
        field,
        f"{name!r} {problem}, so that no worker can import it; define it at the top level of a module, or register it"
        " with config.register_callback where the worker runs",
    )
