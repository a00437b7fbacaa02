"""Distinguishes an application's files from those of libraries, by where they lie."""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

FOREIGN_FOLDERS: Final = frozenset({
    "vendor", "_vendor", "vendored", "_vendored", "third_party", "_third_party", "thirdparty", "extern", "_extern",
    "site-packages", "dist-packages", "__pypackages__", "node_modules", "conda-meta",
})  # fmt: skip
"""Names of folders that hold other people's code, wherever in an application they lie."""

_LIBRARY_FOLDERS: Final = frozenset({"site-packages", "dist-packages"})
_ENVIRONMENT_MARKS: Final = ("pyvenv.cfg", "conda-meta")
sysconfig.get_config_vars()  # filled at the first call without a lock: a second thread would find half of them
_KINDS: Final = ("stdlib", "platstdlib", "purelib", "platlib", "scripts", "include", "platinclude")


def forms(path: str | Path) -> tuple[Path, ...]:
    """Return a path as it is written and with its symlinks resolved; both must pass every check."""
    written = Path(os.path.abspath(path))  # noqa: PTH100 - `absolute` leaves `..` as it stands
    resolved = real(path)
    return (written,) if written == resolved else (written, resolved)


def real(path: str | Path) -> Path:
    """Return a path with its symlinks resolved, as far as it exists."""
    return Path(os.path.realpath(path))


@functools.cache
def library_paths() -> frozenset[Path]:
    """The folders into which this interpreter, its base and the system install code."""
    paths = {str(Path(os.__file__).parent), *site.getsitepackages(), site.getusersitepackages()}
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    for scheme in sysconfig.get_scheme_names():
        if scheme.startswith("nt") is (os.name == "nt"):
            for variables in (None, base):
                found = sysconfig.get_paths(scheme, variables)
                paths.update(found[kind] for kind in _KINDS if found.get(kind))
    return frozenset(form for path in paths for form in forms(path))


@functools.cache
def standard_library_paths() -> frozenset[Path]:
    """The folders of the standard library."""
    paths = {str(Path(os.__file__).parent), sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return frozenset(form for path in paths for form in forms(path))


def in_standard_library(file: str) -> bool:
    """Whether a file belongs to the standard library; what is installed in a folder below it does not."""
    return any(
        form.is_relative_to(library) and _LIBRARY_FOLDERS.isdisjoint(form.relative_to(library).parts)
        for form in forms(file)
        for library in standard_library_paths()
    )


def library_of(path: str | Path) -> Path | None:
    """Return the library folder in which a file or folder lies; None when it lies in none."""
    for form in forms(path):
        for folder in (form, *form.parents):
            if folder in library_paths() or folder.name in _LIBRARY_FOLDERS:
                return folder
    return None


def is_environment(folder: Path) -> bool:
    """Whether a folder is a virtual environment or one of conda."""
    return any((folder / mark).exists() for mark in _ENVIRONMENT_MARKS)


def foreign_part(file: str, root: Path, top: Path) -> str | None:
    """Say what makes a file foreign between itself and its application's root; None when nothing does.

    `top` is the folder that holds its top-level module, where a path does not lead through the root.
    """
    for form in forms(file):
        limits = [limit for limit in (*forms(root), *forms(top)) if form.is_relative_to(limit)]
        limit = limits[0] if limits else form.parent
        below = form
        for folder in _folders(form, limit):
            if folder != limit:
                if folder.name in FOREIGN_FOLDERS or folder.suffix == ".egg":
                    return f"it lies in {folder}, a folder for other people's code"
                if is_environment(folder):
                    return f"it lies in {folder}, a virtual environment"
            if _is_installed(folder, below.name):
                return f"a package that is installed in {folder} has brought it"
            below = folder
    return None


def _folders(file: Path, limit: Path) -> Iterator[Path]:
    """The folders from a file's own up to one of them."""
    for folder in file.parents:
        yield folder
        if folder == limit:
            return


def _is_installed(folder: Path, entry: str) -> bool:
    """Whether an entry of a folder belongs to an installed distribution, by the metadata that lie beside it."""
    try:
        changed_ns = folder.stat().st_mtime_ns
    except OSError:  # inside a zip file
        changed_ns = -1
    installed = _installed(str(folder), changed_ns)
    return installed is None or entry in installed


@functools.lru_cache(maxsize=256)
def _installed(folder: str, _changed_ns: int) -> frozenset[str] | None:
    """The entries of a folder that distributions have brought; None where one does not say: it may be any."""
    found: set[str] = set()
    for distribution in metadata.distributions(path=[folder]):
        if (entries := _entries_of(distribution)) is None:
            return None
        found |= entries
    return frozenset(found)


def _entries_of(distribution: metadata.Distribution) -> set[str] | None:
    if distribution.read_text("RECORD") is None and distribution.read_text("installed-files.txt") is None:
        # A project's folder of source code has metadata, too; they list SOURCES.txt.
        return set() if distribution.read_text("SOURCES.txt") is not None else None
    return {file.parts[0] for file in distribution.files or () if file.parts}
