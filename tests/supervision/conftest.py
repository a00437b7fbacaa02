"""Fixtures of the tests of worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_system import QueueConfig, QueueManager
from tests.kit.servers import OwnServer
from tests.supervision.support import Bench


@pytest.fixture
def bench(server: OwnServer, prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """A queue and its programs; they are killed at the end."""
    config = QueueConfig(redis_url=server.url, queue_prefix=prefix)
    with server.client() as client:
        bench = Bench(server, prefix, tmp_path, client, QueueManager(config))
        try:
            yield bench
        finally:
            bench.close()
            config.transport.close()
