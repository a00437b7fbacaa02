"""Faults from within a worker process: a test asks for them, and the process does them to itself. Never judges them."""

from __future__ import annotations

import functools
import inspect
import os
import resource
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from queue_system.broker.commands import SCRIPTS
from queue_system.broker.sync import SyncTransport
from queue_system.broker.wire import AioWire
from queue_system.execution.completer import Completer
from queue_system.execution.dispatcher import Dispatcher
from queue_system.execution.executor import Executor
from queue_system.execution.importing import Importer
from queue_system.execution.inflight import InFlight
from queue_system.execution.slots import Slot
from queue_system.maintenance.heartbeat import Heartbeat
from queue_system.model.operation import PHASE_SUCCESS
from tests.faults.support.notes import begun, note

Condition = Callable[..., object]
"""Decides by the result of a method, then its arguments with `self`, whether the fault comes now."""


def install(wanted: Mapping[str, Any]) -> None:
    """Prepare this process as its test asks for.

    `die_at`: a crash point. `heartbeat`: "errors" or "exits" in every other beat, or "hangs" at the third.
    `descriptors`: the limit of open files. `copies`: how many workers in the process. `config`: settings beyond those
    of the bench. `uvloop`: whether to run in the fastest event loop.
    """
    if "die_at" in wanted:
        method, moment, condition = CRASH_POINTS[wanted["die_at"]]
        _hook(method, moment, _death(condition))
    if "heartbeat" in wanted:
        _hook("Heartbeat.perform", "before", _Arrhythmia(wanted["heartbeat"]))
    if "descriptors" in wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted["descriptors"], wanted["descriptors"]))


def _death(condition: Condition) -> Condition:
    def die(*call: Any, **options: Any) -> None:
        if condition(*call, **options):
            os.kill(os.getpid(), signal.SIGKILL)

    return die


def _sends(script: str) -> Condition:
    mark = SCRIPTS[script].sha.encode()
    return lambda result, wire, request, *more: mark in request


def _runs(phase: str) -> Condition:
    def runs(result: object, executor: object, slot: Slot, processor: Any, *call: object) -> bool:
        imports = isinstance(getattr(processor, "__self__", None), Importer)  # before it is run for the first time
        return not imports and slot.delivery.operation.phase == phase

    return runs


def _is_answered(phase: str) -> Condition:
    return lambda result, completer, batch, *answer: any(
        settled.verb == "complete" and settled.delivery.operation.phase == phase for settled in batch.settlements
    )


def _is_answered_yes(name: str) -> Condition:
    return lambda result, transport, command, **options: command.name == name and result


def _is_second_of_a_run() -> Condition:
    calls = iter((False, True))
    return lambda *call: begun.is_set() and next(calls)


CRASH_POINTS: Final[dict[str, tuple[str, str, Condition]]] = {
    "claim-sent": ("AioWire.send", "after", _sends("claim")),
    "claim-answered": ("InFlight.claimed", "before", lambda result, inflight, claimed: claimed.values),
    "delivery-taken": ("Dispatcher.take", "after", lambda result, dispatcher: True),
    "run-start": ("Executor.run", "before", _runs("")),
    "run-end": ("Executor.run", "after", _runs("")),
    "verdict-put": ("Completer.put", "after", lambda result, completer, settlement: settlement.verb == "complete"),
    "settle-sent": ("AioWire.send", "after", _sends("settle")),
    "settle-answered": ("Completer.judged", "before", _is_answered("")),
    "callback-start": ("Executor.run", "before", _runs(PHASE_SUCCESS)),
    "callback-end": ("Executor.run", "after", _runs(PHASE_SUCCESS)),
    "callback-settled": ("Completer.judged", "before", _is_answered(PHASE_SUCCESS)),
    "beaten": ("Heartbeat.perform", "after", _is_second_of_a_run()),
    "declared-dead": ("SyncTransport.run", "after", _is_answered_yes("declare_dead")),
    "items-reclaimed": ("SyncTransport.run", "after", _is_answered_yes("reclaim")),
}
"""Name to method, whether before or after it, and the condition."""

_OWNERS: Final[dict[str, type[Any]]] = {
    owner.__name__: owner for owner in (AioWire, Completer, Dispatcher, Executor, Heartbeat, InFlight, SyncTransport)
}


class _Arrhythmia:
    """Raises inside the heartbeat's thread."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._beats = 0

    def __call__(self, *call: object) -> None:
        self._beats += 1
        if self._kind == "errors" and self._beats % 2 == 0:
            raise RuntimeError("an error inside the heartbeat")
        if self._kind == "exits" and self._beats % 2 == 0:
            raise SystemExit
        if self._kind == "hangs" and self._beats == 3:
            note("pulse-ends", "-")
            threading.Event().wait()


def _hook(method: str, moment: str, fault: Condition) -> None:
    """Call `fault` before or after each call of a method of the code under test."""
    owner, name = _OWNERS[method.partition(".")[0]], method.partition(".")[2]
    original = getattr(owner, name)

    def before(*arguments: Any, **options: Any) -> Any:
        fault(None, *arguments, **options)
        return original(*arguments, **options)

    def after(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        fault(result, *arguments, **options)
        return result

    async def after_await(*arguments: Any, **options: Any) -> Any:
        result = await original(*arguments, **options)
        fault(result, *arguments, **options)
        return result

    awaited = inspect.iscoroutinefunction(original)
    hooked = before if moment == "before" else after_await if awaited else after
    setattr(owner, name, functools.wraps(original)(hooked))
