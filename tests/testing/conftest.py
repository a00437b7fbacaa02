"""Fixtures for the tests of the testing helpers: the same configuration that the plugin's users have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from queue_system import QueueConfig, QueueManager
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer


@pytest.fixture
def config(server: OwnServer, prefix: str) -> Iterator[QueueConfig]:
    """A configuration on the test's prefix."""
    made = QueueConfig(redis_url=server.url, queue_prefix=prefix, logger=LineLogger())
    with contextlib.closing(made.transport):
        yield made


@pytest.fixture
def queue(config: QueueConfig) -> QueueManager:
    """A manager of `config`."""
    return QueueManager(config)
