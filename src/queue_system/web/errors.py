"""What the queue's errors are as HTTP answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from queue_system.errors import (
    CircuitOpenError,
    InvalidInputError,
    ItemTooLargeError,
    QueueSystemError,
    ServerFullError,
    ServerUnreachableError,
    UnconfirmedError,
    UnknownOperationError,
    WaitTimeoutError,
)

_RETRY_AFTER_S: Final = 5.0


async def answer_error(_request: Request, error: Exception) -> Response:
    """Answer a request whose handler let an error of the queue pass.

    Bad input is 422, an item too large 413, an unknown operation 404, a wait too long 504; where trying again helps,
    503 with `Retry-After`; all else 500. The body is `{"detail", "error_type"}`, with `field` for bad input.
    """
    body = {"detail": "the queue is not available", "error_type": type(error).__name__}
    match error:
        case InvalidInputError():
            body |= {"detail": str(error), "field": error.field}
            return JSONResponse(body, 413 if isinstance(error, ItemTooLargeError) else 422)
        case UnknownOperationError():
            return JSONResponse(body | {"detail": str(error)}, 404)
        case WaitTimeoutError():
            return JSONResponse(body | {"detail": str(error)}, 504)
        case CircuitOpenError():
            return _try_again(body, error.retry_after)
        case ServerUnreachableError() | ServerFullError() | UnconfirmedError():
            return _try_again(body, _RETRY_AFTER_S)
    return JSONResponse(body, 500)


exception_handlers: Final[dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]]] = {
    QueueSystemError: answer_error
}
"""For `FastAPI(exception_handlers=...)` and `Starlette(exception_handlers=...)`."""


def _try_again(body: dict[str, str], after_s: float) -> Response:
    return JSONResponse(body, 503, headers={"Retry-After": str(max(1, math.ceil(after_s)))})
