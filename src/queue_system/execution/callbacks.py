"""What a callback item says: which callback, with what data. Never runs it."""

from __future__ import annotations

from typing import Any

from queue_system.model.operation import PHASE_SUCCESS, Operation


def callback_reference(operation: Operation) -> tuple[str, str | None]:
    """Return name and module of the callback that the operation's phase asks for; an empty name when it has none."""
    if operation.phase == PHASE_SUCCESS:
        return operation.on_success or "", operation.on_success_module
    return operation.on_failure or "", operation.on_failure_module


def callback_data(operation: Operation) -> dict[str, Any]:
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
