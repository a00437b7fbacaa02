"""The time limit of each test: nothing that a test runs can swallow it for good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.kit.source import ROOT

STUBBORN = """
import contextlib
import time

import pytest


@pytest.fixture
def hangs_in_teardown():
    yield
    time.sleep(1000)


def test_that_swallows_its_time_limit(hangs_in_teardown):
    with contextlib.suppress(BaseException):
        time.sleep(1000)
    time.sleep(1000)
"""


def test_a_time_limit_that_was_swallowed_strikes_again_also_in_the_teardown(tmp_path: Path) -> None:
    module = tmp_path / "test_stubborn.py"
    module.write_text(STUBBORN)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:randomly", "--timeout=2", "-q"]
    ended = subprocess.run([*command, module], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert "1 failed, 1 error" in ended.stdout, ended.stdout + ended.stderr
