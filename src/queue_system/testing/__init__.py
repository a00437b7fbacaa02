"""Helpers for the tests of applications, on a real server.

`pytest_plugins = ["queue_system.testing.plugin"]` in a `conftest.py` brings the fixtures.
"""

from __future__ import annotations

from queue_system.testing.capture import CapturedOperation, captured_operations
from queue_system.testing.idle import run_until_idle
from queue_system.testing.proxy import Proxy
from queue_system.testing.server import private_server
from queue_system.testing.workers import kill_worker

__all__ = [
    "CapturedOperation",
    "Proxy",
    "captured_operations",
    "kill_worker",
    "private_server",
    "run_until_idle",
]
