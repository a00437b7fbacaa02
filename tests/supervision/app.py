"""An application with a configuration and processors, as a worker's target. Never touches Redis by itself."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from queue_system import QueueConfig, QueueWorker, run_in_process
from tests.kit.journal import Journal
from tests.supervision import harms

config = QueueConfig(
    redis_url=os.environ.get("URL"), queue_prefix=os.environ.get("PREFIX", "queue:"), lease_seconds=0.5
)
worker = QueueWorker(config, max_workers=3, work_timeout=7.0, queues=["some"])
number = 5


def make_config() -> QueueConfig:
    return config


async def make_worker() -> QueueWorker:
    await asyncio.sleep(0)
    return worker


def fail() -> QueueConfig:
    raise LookupError("no settings for this host")


async def work(entity: dict[str, Any]) -> None:
    """Take some time, and note the beginning and the end."""
    note(entity, "start")
    await asyncio.sleep(entity["seconds"])
    note(entity, "end")


async def block(entity: dict[str, Any]) -> None:
    note(entity, "start")
    time.sleep(entity["seconds"])  # noqa: ASYNC251 - that is its fault
    note(entity, "end")


@run_in_process
def spin(entity: dict[str, Any]) -> None:
    """Run forever, in a child process."""
    note(entity, "start")
    while True:
        pass


def end_a_process(entity: dict[str, Any]) -> None:
    """Fork a process and end it."""
    note(entity, "start")
    process = multiprocessing.get_context("fork").Process(target=_sleep_on)
    process.start()
    process.terminate()
    process.join()
    note(entity, f"ended{process.exitcode}")


async def wait_in_a_thread(entity: dict[str, Any]) -> None:
    note(entity, "start")
    await asyncio.to_thread(time.sleep, entity["seconds"])


async def wait_in_its_own_pool(entity: dict[str, Any]) -> None:
    """Wait in a pool whose threads Python waits for at its exit."""
    note(entity, "start")
    await asyncio.get_running_loop().run_in_executor(_pool, time.sleep, entity["seconds"])


async def ignore_cancellations(entity: dict[str, Any]) -> None:
    """Go on whatever happens, as a loop with a bare `except` does."""
    note(entity, "start")
    while True:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(entity["seconds"])


async def signal_itself(entity: dict[str, Any]) -> None:
    """Ask its own process to leave, and wait."""
    note(entity, "start")
    os.kill(os.getpid(), entity["signal"])
    await asyncio.sleep(entity["seconds"])


async def ignore_signals(entity: dict[str, Any]) -> None:
    """Be deaf, as a library is that sets handlers of its own."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    note(entity, "start")


async def block_signals(entity: dict[str, Any]) -> None:
    """Let signals wait in the thread of the event loop."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    note(entity, "start")


async def take_signals_for_the_loop(entity: dict[str, Any]) -> None:
    """Handle signals as an application does that has the event loop for itself."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)
    note(entity, "start")


async def give_signals_back(entity: dict[str, Any]) -> None:
    """Give up what it never had: afterwards, signals have their usual effect."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, print)
    loop.remove_signal_handler(signal.SIGTERM)
    signal.set_wakeup_fd(-1)
    note(entity, "start")


async def stop_the_loop_in_another_context(entity: dict[str, Any]) -> None:
    """Stop the event loop, in a way that does not show whose doing it is."""
    note(entity, "start")
    contextvars.Context().run(asyncio.get_running_loop().stop)
    await asyncio.sleep(entity["seconds"])


async def exit_in_a_callback(entity: dict[str, Any]) -> None:
    """Leave an exit to the event loop, which it goes through."""
    note(entity, "start")
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(entity["seconds"])


async def cancel_all_tasks_from_a_thread(entity: dict[str, Any]) -> None:
    """Cancel every task of the event loop, from a thread of nobody's."""
    note(entity, "start")
    loop = asyncio.get_running_loop()
    context = contextvars.Context()
    threading.Thread(target=context.run, args=(loop.call_soon_threadsafe, _cancel_all, loop)).start()
    await asyncio.sleep(entity["seconds"])


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


async def cancel_all_tasks(entity: dict[str, Any]) -> None:
    """Cancel every task of the event loop, as a clean-up that means its own does."""
    for task in asyncio.all_tasks():
        task.cancel()
    note(entity, "start")


async def gather_all_tasks(entity: dict[str, Any]) -> None:
    """Give up waiting for all tasks, which cancels them."""
    asyncio.gather(*asyncio.all_tasks()).cancel()
    await asyncio.sleep(0)
    note(entity, "start")


async def block_without_threads(entity: dict[str, Any]) -> None:
    """Block the event loop in a process that can begin no thread any more."""
    threading.Thread.start = _begin_none  # type: ignore[assignment,method-assign]  # as at a limit of threads or memory
    note(entity, "start")
    while True:
        time.sleep(entity["seconds"])  # noqa: ASYNC251 - that is its fault


def _begin_none(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def harm(entity: dict[str, Any]) -> None:
    """Do to the process, in a thread, what the entity names."""
    getattr(harms, entity["harm"])()
    note(entity, "end")


def note_in_a_thread(entity: dict[str, Any]) -> None:
    note(entity, "end")


async def harm_in_the_loop(entity: dict[str, Any]) -> None:
    harm(entity)


_pool = ThreadPoolExecutor(1)


def _sleep_on() -> None:
    """Sleep, though signals come that are handled."""
    while True:
        time.sleep(0.1)


def grow(entity: dict[str, Any]) -> None:
    note(entity, "start")
    _leaked.append(b"x" * (entity["mb"] << 20))
    note(entity, "end")


_leaked: list[bytes] = []


def note(entity: dict[str, Any], event: str) -> None:
    Journal(Path(entity["journal"])).note(event, entity["n"])
