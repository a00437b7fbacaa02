"""What the source code says of itself, read from its syntax trees. Never imports a module of it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"


class Place(StrEnum):
    """Where an import statement stands."""

    MODULE = "module"
    TYPES = "TYPE_CHECKING"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name. `name` is dotted and absolute: `from a.b import c` is `a.b.c`."""

    name: str
    place: Place
    line: int


@dataclass(frozen=True)
class Module:
    """One source file under its dotted name."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(self._imports([self.tree], Place.MODULE))

    def _imports(self, nodes: Iterable[ast.AST], place: Place) -> Iterator[Import]:
        for node in nodes:
            match node:
                case ast.Import(names=names):
                    yield from (Import(alias.name, place, node.lineno) for alias in names)
                case ast.ImportFrom(names=names):
                    origin = self._origin(node)
                    yield from (Import(f"{origin}.{alias.name}", place, node.lineno) for alias in names)
                case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                    yield from self._imports(node.body, Place.TYPES)
                    yield from self._imports(node.orelse, place)
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    yield from self._imports(ast.iter_child_nodes(node), Place.FUNCTION)
                case _:
                    yield from self._imports(ast.iter_child_nodes(node), place)

    def _origin(self, statement: ast.ImportFrom) -> str:
        """The absolute name of the module that a `from` statement names."""
        if not statement.level:
            return statement.module or ""
        above = statement.level - (self.path.name == "__init__.py")
        package = self.name.split(".")
        package = package[: len(package) - above]
        return ".".join([*package, *([statement.module] if statement.module else [])])

    def functions(self) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
        """Each function with its number of lines, from `def` to its end, its docstring not counted."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if ast.get_docstring(node, clean=False) is not None:
                    lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
                yield node, lines


def load_modules() -> Mapping[str, Module]:
    """Every module under `src`, by dotted name."""
    modules = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path)
    return modules


def imported_module(name: str, modules: Mapping[str, Module]) -> str | None:
    """The module of ours that importing `name` reads from: `a.b.c`, else `a.b` if `c` is a name in it, else None."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else None
