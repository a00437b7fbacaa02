"""What the package and its short import path offer."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import utils
from queue_system import resilience
from tests.kit.source import SRC


def test_all_is_exact() -> None:
    """`__all__` of the package lists its public names and no other."""
    public = {
        name
        for name, value in vars(resilience).items()
        if not name.startswith("_") and name != "annotations" and not inspect.ismodule(value)
    }
    assert sorted(resilience.__all__) == sorted(public)


def test_utils_offers_the_same_objects() -> None:
    assert utils.__all__ == ["CircuitBreaker", "circuit_breaker", "retry_with_backoff", "try_catch", "with_timeout"]
    assert all(getattr(utils, name) is getattr(resilience, name) for name in utils.__all__)


@pytest.mark.parametrize("first", ["utils", "utils.helpers"])
def test_a_project_s_folder_utils_without_an_init_file_works_beside_ours(tmp_path: Path, first: str) -> None:
    """Whichever of the two is imported first."""
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "helpers.py").write_text("HELP = 5")
    program = (
        f"import {first}\nfrom utils.helpers import HELP\nfrom utils import with_timeout\nprint(HELP, with_timeout)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join([str(SRC), str(tmp_path)])},
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert ended.stdout.startswith("5 <function with_timeout"), ended.stderr
