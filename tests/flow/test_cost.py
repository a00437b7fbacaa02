"""What an operation costs in calls and commands, which no other load on the machine changes. Never measures time."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from types import FrameType
from typing import Any

import pytest

from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.execution import claimer, completer, dispatcher
from queue_system.execution.engine import Engine
from queue_system.maintenance import discovery
from tests.kit.servers import OwnServer

OPERATIONS = 5000
CALLS_PER_OPERATION = 62 if sys.version_info < (3, 12) else 69
"""Python and C calls that every operation makes. Measured: 58 on an idle machine, 59 with both cores busy.

From 3.12 on the interpreter reports more of the calls to C: 66 under 3.12 and 63 under 3.13, for the same work.
"""
COMMANDS_PER_OPERATION = 0.05
"""Scripts for each operation. Measured: 0.014 on an idle machine, 0.022 with both cores busy."""
SERVER_CALLS = ("hdel", "set", "hset", "rpop", "get")
SERVER_CALLS_PER_OPERATION = 2
"""Commands inside the scripts that every operation costs: one takes its token away, one writes its record."""
SERVER_CALLS_PER_SCRIPT = 4
"""Those that a script costs beside them, however many operations share it. Measured: 2.5."""

WAITING_OPERATIONS = 250
SCRIPTS_PER_WAITING_OPERATION = 0.85
"""Scripts for each operation of 5 to 35 ms in 5 slots. Measured: 0.6 to 0.7; 0.9 to 1.5 if settlements do not wait."""
TURNS_PER_WAITING_OPERATION = 0.8
"""Turns of the engine, empty ones included. Measured: 0.3 to 0.4; 1.1 to 1.6 if each answer makes another turn."""


class Counter:
    """Counts the calls that this thread makes, by function."""

    def __init__(self) -> None:
        self.calls: dict[object, int] = defaultdict(int)

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            self.calls[frame.f_code] += 1
        elif event == "c_call":
            self.calls[arg.__qualname__] += 1

    def per_operation(self) -> int:
        """The calls that every operation makes; what a turn or a time slice makes for many depends on the machine."""
        return sum(calls // OPERATIONS for calls in self.calls.values())


async def test_a_drained_operation_costs_few_calls_here_and_few_commands_there(
    server: OwnServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completer, "_NOTE_RUNNING_AFTER_S", 60.0)  # slowness costs, and depends on the machine
    monkeypatch.setattr(claimer, "RELEASE_AFTER_S", 60.0)
    monkeypatch.setattr(dispatcher, "_SLICE_S", 60.0)
    monkeypatch.setattr(discovery, "many_writer", lambda *_: "")  # when it is known depends on the machine, too
    config = QueueConfig(redis_url=server.url, queue_prefix=prefix)
    drained = asyncio.Event()
    done = 0

    async def noop(entity: Any) -> None:
        nonlocal done
        done += 1
        if done == OPERATIONS:
            drained.set()

    QueueManager(config).enqueue_batch([{"n": n} for n in range(OPERATIONS)], noop)
    worker, counter = QueueWorker(config, max_workers=10), Counter()
    with server.client() as client:
        before: Any = client.info("commandstats")
        sys.setprofile(counter)
        try:
            await worker.start()
            await asyncio.wait_for(drained.wait(), 30)
        finally:
            sys.setprofile(None)
        await worker.stop()  # and so settle the last ones
        after: Any = client.info("commandstats")

    def spent(name: str) -> int:
        return _calls(after, name) - _calls(before, name)

    scripts = spent("evalsha") + spent("eval")
    each = sum(spent(name) // OPERATIONS for name in SERVER_CALLS)
    beside = sum(spent(name) % OPERATIONS for name in SERVER_CALLS)
    assert counter.per_operation() <= CALLS_PER_OPERATION
    assert scripts / OPERATIONS <= COMMANDS_PER_OPERATION
    assert each <= SERVER_CALLS_PER_OPERATION
    assert beside / scripts <= SERVER_CALLS_PER_SCRIPT


async def test_operations_that_end_one_by_one_share_their_scripts(
    server: OwnServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    turn = Engine.turn

    async def counted(engine: Engine) -> None:
        nonlocal turns
        turns += 1
        await turn(engine)

    monkeypatch.setattr(Engine, "turn", counted)
    config = QueueConfig(redis_url=server.url, queue_prefix=prefix)
    half = asyncio.Event()
    ended = asyncio.Event()
    done = 0

    async def wait(entity: Any) -> None:
        nonlocal done
        await asyncio.sleep(0.005 + 0.030 * (entity["n"] * 0.618 % 1))
        done += 1
        if done == WAITING_OPERATIONS:
            half.set()
        elif done == 2 * WAITING_OPERATIONS:
            ended.set()

    QueueManager(config).enqueue_batch([{"n": n} for n in range(3 * WAITING_OPERATIONS)], wait)
    worker = QueueWorker(config, max_workers=5)
    with server.client() as client:
        await worker.start()
        await asyncio.wait_for(half.wait(), 60)  # by now it knows how long they run
        before: Any = client.info("commandstats")
        turns = 0
        await asyncio.wait_for(ended.wait(), 60)
        after: Any = client.info("commandstats")
        await worker.stop()
    scripts = _calls(after, "evalsha") - _calls(before, "evalsha")
    assert turns / WAITING_OPERATIONS <= TURNS_PER_WAITING_OPERATION
    assert scripts / WAITING_OPERATIONS <= SCRIPTS_PER_WAITING_OPERATION


def _calls(commandstats: dict[str, Any], name: str) -> int:
    calls: int = commandstats.get(f"cmdstat_{name}", {"calls": 0})["calls"]
    return calls
