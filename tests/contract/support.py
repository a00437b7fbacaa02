"""What the contract's tests share: a counter of the fleet, and Python processes. Tests nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from queue_system import QueueConfig, QueueManager
from tests.kit.source import SRC

ENDS_WITHIN_S = 20.0
SERVER_VARIABLES = ("QUEUE_SYSTEM_REDIS_URL", "REDIS_URL", "QUEUE_SYSTEM_DATA_DIR")


def counted(config: QueueConfig, name: str) -> int:
    """A counter of the whole fleet."""
    count: int = QueueManager(config=config).get_queue_status()["metrics"].get(name, 0)
    return count


@contextlib.contextmanager
def python(*arguments: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that is started in `cwd` and finds modules there; killed at the end if it still runs.

    It sees no variable that names a server, unless `variables` gives it one.
    """
    environment = {name: value for name, value in os.environ.items() if name not in SERVER_VARIABLES}
    environment |= {"PYTHONPATH": os.pathsep.join([str(SRC), str(cwd)]), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=ENDS_WITHIN_S)  # what it has started may hold the pipes


def run(*arguments: str, cwd: Path, **variables: str) -> tuple[str, str]:
    """Run such a process to its end, which must be a good one; return what it wrote to stdout and stderr."""
    with python(*arguments, cwd=cwd, **variables) as process:
        output, errors = process.communicate(timeout=50)
    assert process.returncode == 0, errors
    return output, errors
