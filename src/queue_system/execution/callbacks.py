"""What a callback item says, which callback and with what data, and the call of it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from queue_system.execution.importing import Importer
from queue_system.model.lazy import finished
from queue_system.model.operation import PHASE_SUCCESS, Operation

Execute = Callable[[str, str | None, dict[str, Any]], Awaitable[None]]


class Callback(msgspec.Struct, frozen=True, gc=False):
    """A callback by name and module, and what it receives; an empty name where the operation has none."""

    name: str
    module: str | None
    data: dict[str, Any]

    @classmethod
    def of(cls, operation: Operation) -> Callback:
        """Return the callback that the operation's phase asks for."""
        if operation.phase == PHASE_SUCCESS:
            return cls(operation.on_success or "", operation.on_success_module, _data(operation))
        return cls(operation.on_failure or "", operation.on_failure_module, _data(operation))


class Callbacks:
    """Finds and calls callbacks; `execute` is the worker's way to call one, which tries again."""

    def __init__(self, importer: Importer, execute: Execute) -> None:
        self._importer = importer
        self._execute = execute

    async def run(self, callback: Callback) -> None:
        """Run a callback, as often as it takes; a name that surely leads to nothing is not tried again."""
        await self._importer.check(callback.name, callback.module)
        await self._execute(callback.name, callback.module, callback.data)

    async def call(self, name: str, module: str | None, data: dict[str, Any], in_thread: Callable[..., Any]) -> None:
        """Call a callback once: an async one here, a sync one by `in_thread`."""
        callback = await self._importer.load(name, module)
        if inspect.iscoroutinefunction(callback):
            finished(await callback(data))
            return
        result = await in_thread(callback, data)
        finished(await result if inspect.isawaitable(result) else result)


def _data(operation: Operation) -> dict[str, Any]:
    """Return what the callback receives: `entity`, `operation_id`, and `result`, or `error` and where it came from."""
    data: dict[str, Any] = {"entity": operation.entity, "operation_id": operation.operation_id}
    if operation.phase == PHASE_SUCCESS:
        data["result"] = operation.result
        if operation.result_error is not None:
            data["result_error"] = operation.result_error
    else:
        data["error"] = operation.error
        data["error_type"] = operation.error_type
        data["traceback"] = operation.error_traceback
    return data
