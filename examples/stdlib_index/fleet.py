"""The worker processes of one run: started together, stopped together. Never talks to Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_STOPPED_WITHIN_S = 40.0  # more than a worker takes to stop at worst: its work_timeout and the hand-back


class Fleet:
    """Worker processes that write their logs into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, count: int) -> None:
        """Start `count` worker processes."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        for number in range(1, count + 1):
            with (self._folder / f"worker-{number}.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "examples.stdlib_index.worker"],
                    env={**os.environ, "PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C reaches the producer alone, which stops them in order
                )
            self._processes.append(process)

    @property
    def alive(self) -> int:
        """How many of them run."""
        return sum(process.poll() is None for process in self._processes)

    def stop(self) -> None:
        """Ask all to stop, wait for them, and kill what does not. A second call does nothing."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
