"""Reads from a module's source which functions it defines."""

from __future__ import annotations

import ast
import functools
import importlib.util
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from queue_system.imports.modules import Found

_parsing: Final = threading.Lock()
_MOST_TRIES: Final = 100


def defines(found: Found, name: str) -> bool:
    """Whether a module's source defines a top-level function of that name, also under an `if`, `try` or `with`.

    Raises:
        OSError, SyntaxError, ValueError: it cannot be read; neither can it be imported.
    """
    try:
        status = Path(found.file).stat()
    except OSError:
        return name in _functions_in(found.loader.get_source(found.name) or "")  # an entry of a zip file
    return name in _functions_of(found.file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _functions_of(file: str, _changed_ns: int, _size: int) -> frozenset[str]:
    return _functions_in(importlib.util.decode_source(Path(file).read_bytes()))


def _functions_in(source: str) -> frozenset[str]:
    return frozenset(_names(_tree(source).body))


def _tree(source: str) -> ast.Module:
    """Parse a source; CPython before 3.13 counts the depth of all threads' trees together, and fails by SystemError.

    The lock keeps our own threads apart, and trying again helps against those of the application.
    """
    with _parsing:
        for _ in range(_MOST_TRIES):
            try:
                return ast.parse(source)
            except SystemError:
                continue
        return ast.parse(source)


def _names(statements: Iterable[ast.AST]) -> Iterator[str]:
    for statement in statements:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef():
                pass
            case ast.stmt() | ast.ExceptHandler() | ast.match_case():
                yield from _names(ast.iter_child_nodes(statement))
            case _:  # an expression defines nothing
                pass
