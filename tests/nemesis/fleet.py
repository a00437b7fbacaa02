"""The worker processes of a run. Never notes a fault; the nemesis does."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.kit.processes import PythonProcess
from tests.nemesis import mutants
from tests.nemesis.history import VARIABLE
from tests.nemesis.observed import NAME_VARIABLE


class Worker(PythonProcess):
    """One worker process under the name that it has in the history."""

    def __init__(self, name: str, settings: dict[str, Any], history: Path, log: Path, mutant: str) -> None:
        self.name = name
        self.frozen = False
        self.leaving = False
        variables = {VARIABLE: str(history), NAME_VARIABLE: name, mutants.VARIABLE: mutant}
        arguments = ("-m", "tests.nemesis.worker_process", json.dumps(settings))
        super().__init__(*arguments, log=log, variables=variables, stdout=subprocess.DEVNULL)

    @property
    def up(self) -> bool:
        """Whether it runs and is to go on."""
        return self.alive and not self.frozen and not self.leaving

    def freeze(self) -> None:
        """Stop all its threads (SIGSTOP)."""
        self.frozen = True
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT); nothing if it was killed meanwhile."""
        self.frozen = False
        self.send(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """Ask it to end in order (SIGTERM), and return at once."""
        self.leaving = True
        self.send(signal.SIGTERM)


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
        for worker in self.workers:
            worker.kill()
