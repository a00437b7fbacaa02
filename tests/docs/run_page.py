"""Runs the Python of one page, block by block in one namespace, as a reader would. Never goes on after an error.

`python -m tests.docs.run_page PAGE`, in an empty folder. `await` may stand at the top level. A block `bash` of a line
such as `python order.py` is run, too; with `&` behind it the program runs until the page ends.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib
import inspect
import io
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Final

from tests.docs.blocks import Block, read_blocks

_PROGRAM = re.compile(r"python (\w+\.py)( &)?\n")
_ENDS_WITHIN_S: Final = 20.0
_FLAGS: Final = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def compile_block(block: Block, page: Path) -> types.CodeType:
    """Compile a block so that an error names the page's line."""
    source = "\n" * (block.line - 1) + block.text
    code: types.CodeType = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return code


def run_page(page: Path) -> int:
    """Run all blocks that are to be run; return how many."""
    module = types.ModuleType("page")
    sys.modules["page"] = module
    sys.path.insert(0, "")
    count, blocks = 0, read_blocks(page)
    started = {found[1] for block in blocks if block.language == "bash" and (found := _PROGRAM.fullmatch(block.text))}
    with asyncio.Runner() as runner, contextlib.ExitStack() as programs:
        for block in blocks:
            if block.only_compiled:
                continue
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                if block.file is not None:
                    _write_file(block.file, block, module, is_program=block.file in started)
                elif block.language == "python":
                    _run_block(block, page, module, runner)
                elif block.language != "bash" or not _run_programs(block, programs):
                    continue
            _check_output(block, page, said.getvalue())
            count += 1
    return count


def _run_programs(block: Block, programs: contextlib.ExitStack) -> bool:
    """Run the programs that a block names; tell whether it is of that kind."""
    if not _PROGRAM.fullmatch(block.text):
        return False
    name, behind = _PROGRAM.findall(block.text)[0]
    if behind:
        program = subprocess.Popen([sys.executable, name], stdout=subprocess.DEVNULL)
        programs.callback(program.kill)
        programs.callback(program.wait, _ENDS_WITHIN_S)
        programs.callback(program.terminate)
    else:
        print(subprocess.run([sys.executable, name], capture_output=True, text=True, check=True).stdout)  # noqa: T201
    return True


def _write_file(name: str, block: Block, module: types.ModuleType, *, is_program: bool) -> None:
    """Write a file; import it unless the page runs it."""
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.text, encoding="utf-8")
    if is_program:
        return
    importlib.invalidate_caches()
    written = importlib.import_module(".".join(file.with_suffix("").parts))
    vars(module).update({name: value for name, value in vars(written).items() if not name.startswith("__")})


def _run_block(block: Block, page: Path, module: types.ModuleType, runner: asyncio.Runner) -> None:
    code = compile_block(block, page)
    outcome = eval(code, vars(module))  # noqa: S307 - the page is ours
    if inspect.iscoroutine(outcome):
        runner.run(outcome)


def _check_output(block: Block, page: Path, said: str) -> None:
    if block.expected is not None and not doctest.OutputChecker().check_output(block.expected, said, _FLAGS):
        raise AssertionError(f"{page}:{block.line} prints\n{said}\nwhere the page shows\n{block.expected}")


if __name__ == "__main__":
    print(run_page(Path(sys.argv[1])))  # noqa: T201 - how the test learns of it
