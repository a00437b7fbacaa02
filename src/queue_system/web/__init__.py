"""What a FastAPI or Starlette application needs to enqueue and to show operations."""

from __future__ import annotations

try:
    import starlette  # noqa: F401 - asked here, so that its absence is reported in one place
except ImportError as missing:
    raise ImportError("web applications need Starlette: pip install 'redis-queue-system[web]'") from missing

from queue_system.web.errors import answer_error, exception_handlers
from queue_system.web.events import operation_events, operation_json, operation_stream
from queue_system.web.lifespan import lifespan, queue

__all__ = [
    "answer_error",
    "exception_handlers",
    "lifespan",
    "operation_events",
    "operation_json",
    "operation_stream",
    "queue",
]
