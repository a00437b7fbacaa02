"""The glossary names things that are there: each word of its column *in the code* stands in the source."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT
from tests.kit.source import SRC


def test_each_name_of_the_glossary_stands_in_the_source() -> None:
    page = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.count("|") == 5]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row[3])}
    files = [*SRC.rglob("*.py"), *SRC.rglob("*.lua")]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert len(names) > 30
    assert not {name for name in names if not re.search(rf"\b{name}\b", source)}
