"""The web dashboard: an ASGI application to run or to mount."""

from __future__ import annotations

try:
    import jinja2 as _jinja2  # noqa: F401 - what is missing is named before anything else is
    import starlette as _starlette  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    problem = f"the dashboard needs {error.name}: pip install 'redis-queue-system[dashboard]'"
    raise ModuleNotFoundError(problem, name=error.name) from error

from queue_system.dashboard.access import AuthHook
from queue_system.dashboard.app import create_app
from queue_system.dashboard.server import serve

__all__ = ["AuthHook", "create_app", "serve"]
