"""A container's first process passes signals on, waits for orphans, and ends as its worker does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from queue_system import InvalidInputError
from queue_system.monitoring import prometheus
from tests.kit.source import ROOT

# Orphans become children of the nearest subreaper above them, as they do of a container's first process.
BEGIN = """
import ctypes, os, signal, subprocess, sys, time
from queue_system.supervision.first_process import waiting_for_orphans

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

def work():
    {work}

sys.exit(waiting_for_orphans(work))
"""


def start(work: str) -> subprocess.Popen[str]:
    program = BEGIN.format(work=work.strip().replace("\n", "\n    "))
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT / "src")}
    )


def code_of(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=50)
    return process.returncode


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")


def test_what_a_processor_leaves_behind_is_waited_for() -> None:
    """The shell's own child is orphaned when the shell ends, and gone for good soon after it ends itself."""
    process = start("""
orphan = int(subprocess.run(["sh", "-c", "sleep 0.05 >/dev/null & echo $!"], stdout=subprocess.PIPE).stdout)
deadline = time.monotonic() + 30
while os.path.exists(f"/proc/{orphan}") and time.monotonic() < deadline:
    time.sleep(0.01)
return 3 if not os.path.exists(f"/proc/{orphan}") else 4
""")
    assert code_of(process) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_worker_once_and_its_exit_code_is_returned(number: signal.Signals) -> None:
    process = start(f"""
seen = []
signal.signal({number.value}, lambda number, frame: seen.append(number))
print("ready", flush=True)
while not seen:
    time.sleep(0.01)
time.sleep(0.1)
return 40 + len(seen)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert code_of(process) == 41


def test_a_killed_worker_gives_its_signal_as_the_exit_code() -> None:
    assert code_of(start("os.kill(os.getpid(), signal.SIGKILL)")) == 128 + signal.SIGKILL


def test_counts_go_into_memory_where_nothing_else_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only root."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # so that it is as before after the test
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    folder = prometheus.prepare_multiprocess()
    try:
        assert folder.parent == Path("/dev/shm")
        (folder / "counter_1.db").write_bytes(b"")
    finally:
        prometheus._remove(folder, os.getpid())
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    monkeypatch.setattr(prometheus, "_IN_MEMORY", "/proc/nowhere")
    with pytest.raises(InvalidInputError, match=r"http: .*PROMETHEUS_MULTIPROC_DIR or TMPDIR"):
        prometheus.prepare_multiprocess()
