"""The fenced blocks of a Markdown page, and what its comments say of their test. Never runs one.

A comment on the line before a fence, or before the first heading for the whole page, says how it is tested:

    <!-- test: compile (needs Celery) -->               it is compiled, not run, for that reason
    <!-- test: in tests/testing/test_x.py -->           that file runs it; here it is compiled

A block whose first line is `# shop/mails.py` is that file: it is written and imported. A block `text` right behind a
block `python` is what that prints; `...` stands for anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"```(\w*)\s*$")
_MARK = re.compile(r"<!-- test: (compile \(.+\)|in (\S+)) -->$")
_FILE = re.compile(r"# ((?:\w+/)*\w+\.py)\b")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language, its text, the line on which that begins, and what to do with it."""

    language: str
    text: str
    line: int
    only_compiled: bool
    expected: str | None
    """What it prints, if the page says so."""

    @property
    def file(self) -> str | None:
        """The file that it is."""
        found = _FILE.match(self.text)
        return found[1] if found else None


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in their order. Raises ValueError for a fence that is not closed."""
    lines = page.read_text(encoding="utf-8").splitlines()
    all_compiled = bool(lines and _MARK.match(lines[0]))
    blocks: list[Block] = []
    i = 0
    while i < len(lines):
        opened = _FENCE.match(lines[i])
        i += 1
        if not opened:
            continue
        try:
            end = lines.index("```", i)
        except ValueError:
            raise ValueError(f"{page}:{i}: the fence is not closed") from None
        text = "".join(f"{line}\n" for line in lines[i:end])
        marked = i >= 2 and bool(_MARK.match(lines[i - 2]))
        blocks.append(Block(opened[1], text, i + 1, all_compiled or marked, _output_behind(lines, end + 1)))
        i = end + 1
    return blocks


def runners_of(page: Path) -> list[str]:
    """Return the test files that a page names."""
    marks = (_MARK.match(line) for line in page.read_text(encoding="utf-8").splitlines())
    return [mark[2] for mark in marks if mark and mark[2]]


def _output_behind(lines: list[str], start: int) -> str | None:
    """Return the text block that follows, blank lines apart."""
    while start < len(lines) and not lines[start]:
        start += 1
    if start >= len(lines) or lines[start] != "```text":
        return None
    return "".join(f"{line}\n" for line in lines[start + 1 : lines.index("```", start)])
