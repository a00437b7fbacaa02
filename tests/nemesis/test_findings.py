"""What the nemesis has found, each as a directed play. Never plays at random."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.nemesis.arena import Arena
from tests.nemesis.checker import check
from tests.nemesis.producers import Order


@pytest.mark.full_form
def test_what_a_claim_under_way_will_bring_is_not_released_as_unknown(tmp_path: Path) -> None:
    """The reply of a claim stays lost for two beats while a settlement waits with it; then both are sent again."""
    with Arena(tmp_path, lease_s=4.0, slots=4) as arena:
        arena.start_workers(1)
        arena.send([Order(("first",), seconds=0.2)])
        arena.wait(lambda: arena.events("run", "invoke"), 10.0)
        with arena.nemesis.cut_long_replies(32_000):
            arena.send([Order(("second",), seconds=1.0, padding=200_000)])
            time.sleep(2.5)  # two beats
        violations = check(arena.finish(10.0))
    assert not violations, "\n".join(str(violation) for violation in violations)
