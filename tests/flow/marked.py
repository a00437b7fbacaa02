"""Processors that run in child processes, each with its own way to go wrong. Never touches Redis."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from queue_system import run_in_process


@run_in_process
def identify(entity: Any) -> dict[str, Any]:
    return {"entity": entity, "pid": os.getpid(), "parent": os.getppid()}


def noting(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(fn)
    def wrapper(entity: Any) -> Any:
        return {"noted": True, **fn(entity)}

    return wrapper


@noting
@run_in_process
def identify_and_note(entity: Any) -> dict[str, Any]:
    return {"entity": entity, "pid": os.getpid(), "parent": os.getppid()}


wrapped_elsewhere = noting(identify)


@run_in_process
def spin(entity: dict[str, str]) -> None:
    """Tell its id and run forever."""
    tell_ids(entity["file"], os.getpid())
    while True:
        pass


@run_in_process
def spin_and_tidy(entity: dict[str, str]) -> None:
    """Run forever; tidy up when it must go."""
    tell_ids(entity["file"], os.getpid())
    try:
        while True:
            time.sleep(60)
    finally:
        Path(entity["file"]).with_suffix(".tidied").touch()


@run_in_process
def hold_the_interpreter_with_a_child(entity: dict[str, str]) -> None:
    """Start a process, and sleep in a way that lets no Python code run, not even a signal handler."""
    sleeper = subprocess.Popen(["sleep", "600"])
    tell_ids(entity["file"], os.getpid(), sleeper.pid)
    ctypes.PyDLL(None).sleep(600)


@run_in_process
def die(entity: dict[str, int]) -> None:
    os.kill(os.getpid(), entity["signal"])


@run_in_process
def crash(entity: Any) -> None:
    """Write to no address."""
    ctypes.memset(0, 0, 1)


@run_in_process
def leave(entity: dict[str, int]) -> None:
    os._exit(entity["code"])


@run_in_process
def fail(entity: Any) -> None:
    raise LookupError(f"no such account: {entity['account']}")


@run_in_process
def return_an_object(entity: Any) -> object:
    return signal


@run_in_process
def return_much(entity: dict[str, int]) -> str:
    return "x" * entity["bytes"]


def tell_ids(file: str, *ids: int) -> None:
    """Write process ids to a file, whole or not at all."""
    partial = Path(f"{file}.partial")
    partial.write_text(" ".join(map(str, ids)))
    partial.rename(file)
