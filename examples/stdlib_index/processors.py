"""What the workers run: a processor and its callbacks, found by name. Never prints: the terminal is the producer's."""

from __future__ import annotations

import ast
import time
from typing import Any

from examples.stdlib_index.run import Run
from examples.stdlib_index.sources import LIBRARY


def index_module(entity: dict[str, Any]) -> dict[str, int]:
    """Parse and compile one file and count what is in it. A broken file raises SyntaxError or ValueError.

    The entity has `run`, `path` (inside the library) and `enqueued_at` (Unix seconds).
    """
    path = entity["path"]
    Run(entity["run"]).append(event="started", path=path, waited_s=time.time() - entity["enqueued_at"])
    source = (LIBRARY / path).read_bytes()
    tree = ast.parse(source, path)
    compile(tree, path, "exec", dont_inherit=True)  # finds what the grammar allows and the language does not
    return {"lines": len(source.splitlines()), **_count(tree)}


def on_indexed(data: dict[str, Any]) -> None:
    """Report an indexed file to its run."""
    entity = data["entity"]
    Run(entity["run"]).append(event="indexed", path=entity["path"], counts=data["result"])


def on_failed(data: dict[str, Any]) -> None:
    """Report a file that failed for good to its run."""
    entity = data["entity"]
    Run(entity["run"]).append(event="failed", path=entity["path"])


def _count(tree: ast.Module) -> dict[str, int]:
    functions = classes = imports = 0
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions += 1
            case ast.ClassDef():
                classes += 1
            case ast.Import() | ast.ImportFrom():
                imports += 1
    return {"functions": functions, "classes": classes, "imports": imports}
