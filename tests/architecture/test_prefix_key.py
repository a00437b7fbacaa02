"""No key is named like a prefix: in a cluster, each script would find its one declared key on half of a moving slot."""

from __future__ import annotations

import re

import pytest

from queue_system.broker.commands import SCRIPTS
from queue_system.broker.library import assemble

USES = re.compile(r"(?:prefix\(\)|KEYS\[1\])(?!\s*\.\.)")
DECLARED = "local function prefix() return KEYS[1] end"


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_no_script_touches_a_key_named_like_the_prefix(name: str) -> None:
    """It is only ever the beginning of a key, or of a comparison."""
    code = re.sub(r"--[^\n]*", "", assemble(name)).replace(DECLARED, "")
    alone = [line.strip() for line in code.splitlines() if USES.search(line)]
    assert all("#prefix()" in line or "string.sub" in line or "== prefix()" in line for line in alone), alone
