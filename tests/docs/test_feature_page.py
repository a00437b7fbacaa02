"""The walk through the rooms that docs/add-a-feature.md describes is the one that the code goes."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs/add-a-feature.md").read_text(encoding="utf-8")
KEYWORD, RULE = PAGE.split("\n## ")[1:3]


def files_of(section: str) -> list[str]:
    """The files in a section's table, from the root of the repository."""
    rows = "\n".join(line for line in section.splitlines() if line.startswith("| "))
    named = re.findall(r"`([\w/.-]+\.(?:py|lua|md))`", rows)
    return [name if name.startswith(("tests/", "docs/")) else f"src/queue_system/{name}" for name in named]


@pytest.mark.parametrize("file", files_of(KEYWORD))
def test_each_room_of_the_keyword_knows_it(file: str) -> None:
    """By its own name, or the option's."""
    assert re.search("result[_-]ttl", (ROOT / file).read_text(encoding="utf-8"))


def test_no_room_of_the_keyword_is_left_out() -> None:
    """What reads the keyword of one operation is in the table; the rest of the source knows the setting only."""
    named = set(files_of(KEYWORD))
    for path in (ROOT / "src/queue_system").rglob("*.py"):
        if re.search(r"operation\.result_ttl|options\.result_ttl", path.read_text(encoding="utf-8")):
            assert path.relative_to(ROOT).as_posix() in named


@pytest.mark.parametrize("file", files_of(RULE))
def test_each_room_of_the_rule_is_there(file: str) -> None:
    """A claim leaves out names behind a "!"; the others tell of the rest."""
    assert re.search(r"\brest|'!'|\"!\"|left out", (ROOT / file).read_text(encoding="utf-8"))
