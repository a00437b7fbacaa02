"""Fixtures of the tests of monitoring: what a busy worker process logs and shows."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from tests.kit.processes import environment
from tests.kit.servers import OwnServer
from tests.kit.source import ROOT
from tests.monitoring.support import Samples, parsed


@dataclass(frozen=True)
class Busy:
    """What a worker process that met all kinds of operations wrote to stderr, and what its metrics were."""

    lines: list[str]
    scrape: Samples

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def run_busy(server: OwnServer, log_format: str) -> Busy:
    prefix = f"t{uuid.uuid4().hex[:12]}:"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.monitoring.busy_process", server.url, prefix, log_format],
        cwd=ROOT,
        env=environment(OTEL_SERVICE_NAME="shop"),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    with contextlib.closing(server.client()) as client:
        client.unlink(*client.scan_iter(match=f"{prefix}*", count=1000))
    assert ended.returncode == 0, ended.stderr
    return Busy(ended.stderr.splitlines(), parsed(ended.stdout))


@pytest.fixture(scope="session")
def busy(server: OwnServer) -> Busy:
    """A run that logs JSON."""
    return run_busy(server, "json")
