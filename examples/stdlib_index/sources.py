"""Which files are indexed, and how urgent each one is. Never reads a file's content."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

LIBRARY = Path(sysconfig.get_path("stdlib"))
"""The standard library of the running interpreter."""

_NOT_OURS = {"site-packages", "dist-packages", "__pycache__"}
_TESTS = {"test", "tests", "idle_test"}


@dataclass(frozen=True, slots=True)
class Source:
    """One file, by its path inside the library, and the priority at which it is indexed."""

    path: str
    priority: str


def find_sources(patterns: Sequence[str] = ()) -> list[Source]:
    """Return the library's `.py` files that match one of the patterns (none: all), in the order of their paths."""
    paths = [PurePosixPath(file.relative_to(LIBRARY)) for file in LIBRARY.rglob("*.py") if file.is_file()]
    return [
        Source(str(path), priority_of(path))
        for path in sorted(paths)
        if not _NOT_OURS.intersection(path.parts) and (not patterns or _matches(path, patterns))
    ]


def priority_of(path: PurePosixPath) -> str:
    """Return `"high"` for a top-level module, `"low"` for a test, `"normal"` for any other module of a package."""
    folders = path.parts[:-1]
    if not folders:
        return "high"
    return "low" if _TESTS.intersection(folders) else "normal"


def _matches(path: PurePosixPath, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(str(path), pattern) for pattern in patterns)
