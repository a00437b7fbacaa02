"""An application whose files are named as modules that a worker needs: its child processes start all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from queue_system import QueueConfig, QueueManager, QueueRetryConfig
from tests.kit.servers import OwnServer

SRC = Path(__file__).parents[2] / "src"
JOBS = """
import os
import sys
from queue_system import run_in_process

@run_in_process
def inside(entity):
    return [os.getpid() != entity["parent"], sys.path[0]]

def outside(entity):
    return [os.getpid() != entity["parent"], sys.path[0]]
"""


@pytest.mark.parametrize("processor, options", [("inside", ()), ("outside", ("--processes", "2"))])
def test_a_file_named_as_a_module_that_we_import_keeps_no_child_from_starting(
    server: OwnServer, prefix: str, tmp_path: Path, processor: str, options: tuple[str, ...]
) -> None:
    for name in ("redis", "msgspec", "queue", "logging", "queue_system"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not mine')")
    (tmp_path / "jobs.py").write_text(JOBS)
    queue = QueueManager(QueueConfig(redis_url=server.url, queue_prefix=prefix))
    answer = queue.enqueue({"parent": 0}, f"jobs.{processor}", retry_config=QueueRetryConfig(max_attempts=1))
    # As the script `queue-system` does, which has its own folder on the path, not the current one.
    command = [sys.executable, "-P", "-m", "queue_system", "worker", "--burst", "--url", server.url, "--prefix", prefix]
    ended = subprocess.run(
        [*command, *options], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    record = queue.get_operation(answer["operation_id"])
    assert record is not None
    assert (record.status, record.result) == ("succeeded", [True, str(tmp_path)]), ended.stderr
    assert ended.returncode == 0
