"""How a forked child of a worker ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.hostile_texts import CORPUS, FORGED

CHILD = """
import sys
from queue_system.execution.runners.forks import leave_if_forked

def work():
    raise ValueError(sys.argv[1])

try:
    work()
except ValueError as error:
    leave_if_forked(0, error)
"""


@pytest.mark.parametrize("name", ["both", "next line", "cleared screen"])
def test_the_error_that_ends_a_forked_child_is_told_and_forges_no_line(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, CORPUS[name]], capture_output=True, timeout=30, check=False)
    lines = done.stderr.decode().split("\n")
    assert done.returncode == 1
    assert lines[0] == "Traceback (most recent call last):"
    assert any(line.startswith("ValueError: ") for line in lines)
    assert all(line.isprintable() and not line.startswith(FORGED) for line in lines)
