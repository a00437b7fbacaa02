"""Fixtures of the tests of worker processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from queue_system import QueueManager
from tests.kit.servers import OwnServer
from tests.supervision.support import Bench


@pytest.fixture
def bench(server: OwnServer, prefix: str, tmp_path: Path, client: redis.Redis, queue: QueueManager) -> Iterator[Bench]:
    with contextlib.closing(Bench(server, prefix, tmp_path, client, queue)) as opened:
        yield opened
