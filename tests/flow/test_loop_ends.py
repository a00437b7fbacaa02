"""However an event loop ends, the connections and threads that were used in it end too, and nothing warns of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.flow.hostile import LONG_S, hang
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import wait_until

NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
End: TypeAlias = Callable[[Coroutine[Any, Any, None], NewLoop], None]

BEGIN_WITHIN_S = 30.0


class ProgramError(Exception):
    """What the program of a test fails with."""


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Any:
    return asyncio.new_event_loop if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop


def sockets() -> set[str]:
    """The sockets of this process."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(descriptor.readlink()))
    return {target for target in found if target.startswith("socket:")}


@contextlib.contextmanager
def leaving_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[contextlib.ExitStack]:
    """Fail if what the block does leaves a socket, a thread, or something of which the garbage collector warns.

    The stack is unwound when all threads have ended.
    """
    gc.collect()
    heard: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: heard.append(f"{lost.exc_value!r} in {lost.object!r}"))
    known, threads = sockets(), set(threading.enumerate())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with contextlib.ExitStack() as at_end:
            yield at_end
            wait_until(lambda: threads.issuperset(threading.enumerate()), "all threads end")
        del at_end
        gc.collect()
    assert heard + [str(warning.message) for warning in warned] == []
    assert sockets() <= known


def closed(main: Coroutine[Any, Any, None], new_loop: NewLoop) -> None:
    """Do without what `asyncio.run` does at its end."""
    loop = new_loop()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


def run(main: Coroutine[Any, Any, None], new_loop: NewLoop) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)


def closed_in_another(main: Coroutine[Any, Any, None], new_loop: NewLoop) -> None:
    """Run in a thread, and be closed in another event loop."""
    loop = new_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(main,))
    thread.start()
    thread.join()

    async def close() -> None:
        loop.close()

    asyncio.run(close())


@pytest.mark.parametrize("end", [closed, run, closed_in_another])
def test_calls_of_a_manager_leave_nothing_in_a_loop(
    server: OwnServer, prefix: str, new_loop: NewLoop, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(queue: QueueManager) -> None:
        await asyncio.gather(*[queue.aenqueue({}, hang) for _ in range(3)])

    with leaving_nothing(monkeypatch) as at_end:
        config = QueueConfig(redis_url=server.url, queue_prefix=prefix, logger=LineLogger())
        at_end.callback(config.transport.close)
        queue = QueueManager(config)
        for _ in range(2):
            end(main(queue), new_loop)
        del config, queue


@pytest.mark.parametrize(
    "way, end",
    [
        ("idle", closed),
        ("idle", run),
        ("idle", closed_in_another),
        ("busy", closed),
        ("busy", run),
        ("stopped", closed),
        ("failing", closed),
        ("interrupted", run),
    ],
)
def test_a_worker_leaves_nothing_in_a_loop(
    server: OwnServer, prefix: str, new_loop: NewLoop, way: str, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(config: QueueConfig) -> None:
        worker, began = QueueWorker(config, max_workers=2), asyncio.Event()

        async def begin(_: Any) -> None:
            began.set()
            await asyncio.sleep(0 if way == "idle" else LONG_S)

        await QueueManager(config).aenqueue({}, begin)
        await worker.start()
        await asyncio.wait_for(began.wait(), BEGIN_WITHIN_S)
        if way == "stopped":
            await worker.stop(grace=0)
        elif way == "failing":
            raise ProgramError
        elif way == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(LONG_S)

    with leaving_nothing(monkeypatch) as at_end:
        config = QueueConfig(redis_url=server.url, queue_prefix=prefix, logger=LineLogger())
        at_end.callback(config.transport.close)
        with contextlib.suppress(ProgramError, KeyboardInterrupt):
            end(main(config), new_loop)
        del config


@pytest.mark.parametrize("who, end", [("manager", closed), ("manager", run), ("worker", closed)])
def test_a_frozen_server_leaves_nothing_in_a_loop(
    start_server: StartServer, new_loop: NewLoop, who: str, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()

    async def main(config: QueueConfig) -> None:
        queue = QueueManager(config)
        await queue.aenqueue({}, hang)
        if who == "worker":
            await QueueWorker(config).start()
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.aenqueue({}, hang), 0.1)

    with leaving_nothing(monkeypatch) as at_end:
        config = QueueConfig(redis_url=server.url, logger=LineLogger())
        at_end.callback(config.transport.close)
        try:
            end(main(config), new_loop)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        del config


@contextlib.contextmanager
def silent(scheme: str) -> Iterator[tuple[str, socket.socket]]:
    """The URL of a server that has yet to accept connections, and its socket."""
    path = Path(f"/tmp/qs-{os.getpid()}.silent")  # a folder of pytest's may have too long a name
    with socket.socket(socket.AF_UNIX if scheme == "unix" else socket.AF_INET) as listener:
        listener.bind(str(path) if scheme == "unix" else ("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        try:
            yield (
                f"unix://{path}" if scheme == "unix" else f"{scheme}://127.0.0.1:{listener.getsockname()[1]}",
                listener,
            )
        finally:
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("how, end", [("cancelled", run), ("past its limit", run), ("pending", closed)])
@pytest.mark.parametrize("scheme", ["unix", "rediss"])
def test_a_connection_that_is_being_opened_is_left_in_no_loop(
    new_loop: NewLoop, scheme: str, how: str, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server accepts it, hears the first words, and never answers."""

    async def main(config: QueueConfig, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        call = loop.create_task(QueueManager(config).aenqueue({}, hang))
        connected, _ = await loop.sock_accept(listener)
        at_end.callback(connected.close)
        await loop.sock_recv(connected, 1)
        if how == "cancelled":
            call.cancel()
        if how != "pending":
            await asyncio.wait([call])
            assert call.cancelled() or call.exception()

    with leaving_nothing(monkeypatch) as at_end, silent(scheme) as (url, listener):
        limit_s = 0.2 if how == "past its limit" else BEGIN_WITHIN_S
        config = QueueConfig(
            redis_url=url, connection_timeout=limit_s, max_connection_retries=0, logger=LineLogger()
        )  # fmt: skip
        at_end.callback(config.transport.close)
        end(main(config, listener), new_loop)
        del config
