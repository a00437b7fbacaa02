"""What the tests of the command line share: a run of the program, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import typer

from queue_system.cli.app import app
from tests.kit.source import ROOT
from tests.kit.waiting import wait_until

PROGRAM = (sys.executable, "-m", "queue_system")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run of the program printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


class RunCli(Protocol):
    """The `cli` fixture: the program in this process, on the test's server and prefix."""

    def __call__(self, *arguments: str, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> Answer: ...


class RunProgram(Protocol):
    """The `program` fixture: the program as a process of its own, on the test's server and prefix."""

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> Answer: ...


def contexts(command: Any = None, parent: Any = None, name: str = "queue-system") -> Iterator[Any]:
    """The context of the program and of each command below it."""
    command = command or typer.main.get_command(app)
    context = command.context_class(command, info_name=name, parent=parent, **command.context_settings)
    yield context
    for child, below in getattr(command, "commands", {}).items():
        yield from contexts(below, context, child)


def variable_of(context: Any, option: Any) -> str:
    """The environment variable of an option."""
    return str(option.envvar or f"{context.auto_envvar_prefix}_{option.name.upper()}")


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment of a new process, without what the program would read from it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUEUE_SYSTEM_", "REDIS_URL"))}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**kept, "PYTHONPATH": path, "COLUMNS": "100", "TERM": "xterm", **extra}


def run_program(*arguments: str, stdout: Any = subprocess.PIPE, **env: str) -> Answer:
    """Run the program to its end."""
    done = subprocess.run(
        [*PROGRAM, *arguments], env=clean_environment(**env), stdin=subprocess.DEVNULL, stdout=stdout,
        stderr=subprocess.PIPE, text=True, timeout=50, check=False,
    )  # fmt: skip
    return Answer(done.returncode, done.stdout or "", done.stderr)


def read_until(process: subprocess.Popen[bytes], text: str) -> str:
    """Wait until a program has told something on stderr, and return all that it has told so far."""
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    told = ""

    def tells() -> bool:
        nonlocal told
        assert process.stderr is not None
        told += (process.stderr.read() or b"").decode()
        return text in told

    wait_until(tells, f"it tells {text!r}", 30.0)
    return told


@contextlib.contextmanager
def started(*arguments: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the program; it is killed at the end if the test has not ended it."""
    with subprocess.Popen(
        [*PROGRAM, *arguments], env=clean_environment(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()
