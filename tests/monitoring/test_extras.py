"""What is missing is named with the extra that brings it, and health needs none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.processes import environment

METRICS = """
import asyncio, httpx
from queue_system import QueueConfig
from queue_system.monitoring.probes import create_app
async def ask():
    transport = httpx.ASGITransport(create_app(QueueConfig(redis_url="redis://127.0.0.1:1"), None))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        answer = await client.get("/metrics")
        print(answer.status_code, answer.text)
asyncio.run(ask())
"""
CLI = """
from queue_system.__main__ import main
print(main(), end=" ")
"""
HEALTH = """
import queue_system.logs, queue_system.monitoring.health
print(sorted({"prometheus_client", "uvicorn"} & sys.modules.keys()), "loaded")
"""


def run_without(module: str, program: str) -> str:
    """What a program prints where a module is not installed."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{module!r}] = None\n{program}"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "module, program, told",
    [
        ("starlette", "import queue_system.monitoring.probes", "pip install 'redis-queue-system[web]'"),
        ("prometheus_client", "import queue_system.monitoring.prometheus", "'redis-queue-system[prometheus]'"),
        ("prometheus_client", METRICS, "501 metrics need: pip install 'redis-queue-system[prometheus]'"),
        ("jinja2", "import queue_system.dashboard", "needs jinja2: pip install 'redis-queue-system[dashboard]'"),
        ("typer", CLI, "1 queue-system needs typer: pip install 'redis-queue-system[cli]'\n"),
        ("rich", CLI, "1 queue-system needs rich: pip install 'redis-queue-system[cli]'\n"),
        ("starlette", HEALTH, "[] loaded"),
    ],
    ids=["probes", "prometheus", "metrics", "dashboard", "typer", "rich", "health"],
)
def test_a_missing_library_is_told_by_its_extra_and_health_loads_none(module: str, program: str, told: str) -> None:
    assert told in run_without(module, program)
