"""Processors and callbacks that worker processes run by name. Never imported by anything that judges them."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.faults.support.notes import VARIABLE, begin, note
from tests.kit.journal import Journal

_pair = threading.Barrier(2, timeout=5.0)


async def work(entity: dict[str, Any]) -> str:
    """Take `seconds`, as waiting for a network does."""
    run = begin(entity["id"])
    await asyncio.sleep(entity["seconds"])
    note("end", entity["id"], run)
    return str(entity["id"])


def work_in_thread(entity: dict[str, Any]) -> None:
    """Take `seconds` in a thread."""
    run = begin(entity["id"])
    time.sleep(entity["seconds"])
    note("end", entity["id"], run)


async def block_the_loop(entity: dict[str, Any]) -> None:
    """Take `seconds` without ever giving the event loop a turn."""
    run = begin(entity["id"])
    time.sleep(entity["seconds"])  # noqa: ASYNC251 - the very fault that is tested
    note("end", entity["id"], run)


async def poison(entity: dict[str, Any]) -> None:
    begin(entity["id"])
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(60.0)


def meet(entity: dict[str, Any]) -> None:
    """Succeed only if two of its kind run at the same time in one process."""
    run = begin(entity["id"])
    _pair.wait()
    note("end", entity["id"], run)


async def on_success(data: dict[str, Any]) -> None:
    note("success", data["operation_id"])


async def on_failure(data: dict[str, Any]) -> None:
    note("failure", data["operation_id"])


def hang_on_success(data: dict[str, Any]) -> None:
    """Hang in a thread, as a callback with a dead peer does."""
    note("callback", data["operation_id"])
    time.sleep(12.0)


async def nothing(entity: dict[str, Any]) -> None:
    """Do nothing and note nothing."""


async def segfault(entity: dict[str, Any]) -> None:
    """Let the process that runs it die of an invalid address."""
    begin(entity["id"])
    ctypes.string_at(0)


def is_first_run(operation_id: str) -> bool:
    """Tell whether the run that has begun is the first of its operation, in whatever process."""
    return Journal(Path(os.environ[VARIABLE])).count("start")[operation_id] == 1


async def hold_the_gil(entity: dict[str, Any]) -> None:
    """In its first run, keep all threads of the process from running for `seconds`."""
    run = begin(entity["id"])
    if is_first_run(entity["id"]):
        ctypes.PyDLL(None).sleep(int(entity["seconds"]))
    note("end", entity["id"], run)


async def misbehave(entity: dict[str, Any]) -> object:
    """In its first run, do what the operation's id says."""
    run = begin(entity["id"])
    if is_first_run(entity["id"]):
        _misdeed(entity["id"])
    note("end", entity["id"], run)
    return object() if entity["id"].startswith("unserialisable") else None


def misbehave_in_thread(entity: dict[str, Any]) -> None:
    """Do the same in a thread."""
    run = begin(entity["id"])
    if is_first_run(entity["id"]):
        _misdeed(entity["id"].removeprefix("thread-"))
    note("end", entity["id"], run)


class _UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _ForeignError(BaseException):
    pass


def _misdeed(operation_id: str) -> None:
    match operation_id.rpartition("-")[0]:
        case "sys-exit":
            sys.exit(1)
        case "os-exit":
            os._exit(0)
        case "interrupt":
            raise KeyboardInterrupt
        case "unreadable":
            raise _UnreadableError
        case "foreign":
            raise _ForeignError


async def fork(entity: dict[str, Any]) -> None:
    """Fork a child that comes back in the way that the id says; note the exit code with which it ended."""
    run = begin(entity["id"])
    never = asyncio.get_running_loop().create_future()
    child = os.fork()
    if not child:
        note("child", entity["id"], run)
        if entity["id"].startswith("awaiting"):
            await never
        _come_back(entity["id"])
        return
    note("end", entity["id"], await asyncio.to_thread(_exit_code, child))


async def fork_among_others(entity: dict[str, Any]) -> None:
    """Fork a child that awaits while tasks are ready to go on; note where each does, and how the child ended."""
    run = begin(entity["id"])
    parent = os.getpid()

    async def go_on() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            note("step", entity["id"], run)

    others = [asyncio.create_task(go_on()) for _ in range(5)]
    if not entity["seconds"]:
        await asyncio.sleep(0)  # they have begun, and are about to go on
    child = os.fork()
    if child:
        note("end", entity["id"], await asyncio.to_thread(_exit_code, child))
    await asyncio.gather(*others)
    note("gathered" if os.getpid() == parent else "came back", entity["id"], run)


def fork_in_thread(entity: dict[str, Any]) -> None:
    """Do the same in a thread."""
    run = begin(entity["id"])
    child = os.fork()
    if not child:
        note("child", entity["id"], run)
        _come_back(entity["id"].removeprefix("thread-"))
        return
    note("end", entity["id"], _exit_code(child))


def _come_back(operation_id: str) -> None:
    match operation_id.rpartition("-")[0]:
        case "raising":
            raise ValueError("the child fails")
        case "exiting":
            sys.exit(3)


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def end_processes(entity: dict[str, Any]) -> None:
    """End processes forked here as multiprocessing does; note how they ended."""
    end_processes_in_thread(entity)


def end_processes_in_thread(entity: dict[str, Any]) -> None:
    """Do the same in a thread."""
    begin(entity["id"])
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        pool.map(abs, range(10))
    process = context.Process(target=_sleep_on, args=(entity["seconds"],))
    process.start()
    process.terminate()
    process.join()
    note("end", entity["id"], process.exitcode or 0)


def _sleep_on(seconds: float) -> None:
    """Sleep, though signals come that are handled."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.1)


async def fork_a_survivor(entity: dict[str, Any]) -> None:
    """Fork a child that lives on for `seconds` without ever coming back."""
    run = begin(entity["id"])
    if not os.fork():
        note("child", entity["id"], run)
        time.sleep(entity["seconds"])  # noqa: ASYNC251 - the child has no event loop of its own
        os._exit(0)
    note("end", entity["id"], run)


def exhaust_descriptors(entity: dict[str, Any]) -> None:
    """For `seconds`, take every descriptor that the process may have, and each that becomes free."""
    run = begin(entity["id"])
    until = time.monotonic() + entity["seconds"]
    held: list[int] = []
    told = False
    while time.monotonic() < until:
        try:
            held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            if told:
                time.sleep(0.001)
            else:
                os.close(held.pop())
                note("exhausted", entity["id"], run)
                told = True
    for descriptor in held:
        os.close(descriptor)
    note("end", entity["id"], run)
