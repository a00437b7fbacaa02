"""The worker processes of a run. Never notes a fault; the nemesis does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.nemesis import mutants
from tests.nemesis.history import VARIABLE
from tests.nemesis.observed import NAME_VARIABLE

ROOT = Path(__file__).parents[2]


class Worker:
    """One worker process under the name that it has in the history."""

    def __init__(self, name: str, settings: dict[str, Any], history: Path, log: Path, mutant: str) -> None:
        self.name = name
        self.frozen = False
        self.leaving = False
        environment = {
            **os.environ,
            VARIABLE: str(history),
            NAME_VARIABLE: name,
            mutants.VARIABLE: mutant,
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        }
        command = [sys.executable, "-m", "tests.nemesis.worker_process", json.dumps(settings)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def up(self) -> bool:
        """Whether it runs and is to go on."""
        return self.alive and not self.frozen and not self.leaving

    def kill(self) -> None:
        """End it by SIGKILL, also when it is frozen, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop all its threads (SIGSTOP)."""
        self.frozen = True
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT); nothing if it was killed meanwhile."""
        self.frozen = False
        self._process.send_signal(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """Ask it to end in order (SIGTERM), and return at once."""
        self.leaving = True
        self._process.send_signal(signal.SIGTERM)

    def wait_end(self, within_s: float) -> bool:
        """Wait for its end; False if that does not come in time."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True


class Fleet:
    """Starts workers of one kind, and remembers them."""

    def __init__(self, settings: dict[str, Any], history: Path, mutant: str = "") -> None:
        self.workers: list[Worker] = []
        self._settings = settings
        self._history = history
        self._mutant = mutant

    def start(self) -> Worker:
        """Start one more worker; return at once."""
        name = f"w{len(self.workers) + 1}"
        log = self._history.with_name(f"{name}.log")
        worker = Worker(name, self._settings, self._history, log, self._mutant)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            worker.kill()
