"""The page and the picture of an operation's life have the states that a record may tell, and no other."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from queue_system import OperationRecord
from tests.docs.blocks import ROOT

STATES = set(re.findall(r'"(\w+)"', OperationRecord.__doc__ or ""))


def test_the_table_of_states_has_each_state_that_a_record_tells() -> None:
    page = (ROOT / "docs/guides/life-of-an-operation.md").read_text(encoding="utf-8")
    first = page.partition("## What leads")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", first, re.MULTILINE)) == STATES
    steps = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page, re.MULTILINE)
    assert {state for step in steps for state in step} | {"delayed"} == STATES


def test_the_picture_of_the_states_has_a_box_for_each() -> None:
    picture = ET.parse(ROOT / "docs/images/states.svg")  # noqa: S314 - it is ours
    boxes = picture.findall(".//{*}g[@font-weight='bold']/{*}text")
    assert {box.text for box in boxes} == STATES
