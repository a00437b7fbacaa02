"""The public API has the types that the specification gives it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)  # a first run of mypy has no cache to start from
def test_a_type_checker_sees_the_specified_types() -> None:
    """Mypy, strict, accepts right uses of the public API and rejects wrong ones."""
    command = [sys.executable, "-m", "mypy", "tests/typing/public_api.py"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
