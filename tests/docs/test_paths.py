"""What the documentation says of the source is there: files, scripts and tests that it names, and commands of make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

_SCRIPTS = "src/queue_system/broker/scripts"
FOLDERS = ("src/queue_system", _SCRIPTS, f"{_SCRIPTS}/lib", "src", "tests", "")
_COMMAND = re.compile(r"(?:^|`)make ([a-z-]+)", re.MULTILINE)
PROSE = [ROOT / "docs" / name for name in ("architecture.md", "follow-one-operation.md", "guarantees.md")]


def prose_of(page: Path) -> str:
    """The text of a page without its blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", PROSE, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    """Each `folder/file.py` and `script.lua` of the pages on the source leads to a file."""
    named = set(re.findall(r"`([\w/]+\.(?:py|lua))`", prose_of(document)))
    assert named
    assert not [name for name in sorted(named) if not any((ROOT / folder / name).is_file() for folder in FOLDERS)]


def test_every_command_of_make_that_is_named_exists() -> None:
    """Each `make x` of any page is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {name for page in PAGES for name in _COMMAND.findall(page.read_text(encoding="utf-8"))}
    assert {"demo", "test", "docs"} <= named
    assert not named - targets
