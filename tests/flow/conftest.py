"""Fixtures of flow tests: configurations, managers and clients on the shared server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager
from tests.flow.support import Inbox, MakeConfig
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer


@pytest.fixture
def log() -> LineLogger:
    """The log of `config`."""
    return LineLogger()


@pytest.fixture
def make_config(server: OwnServer, prefix: str) -> Iterator[MakeConfig]:
    """Makes configurations on the test's prefix; each stands for a process of its own."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> QueueConfig:
            defaults: dict[str, Any] = {"redis_url": server.url, "queue_prefix": prefix, "logger": LineLogger()}
            config = QueueConfig(**{**defaults, **settings})
            stack.callback(config.transport.close)
            stack.callback(_close_client, config)
            return config

        yield make
    with server.client() as plain:  # all at once: one by one, each deletion would wait for the disk
        if keys := list(plain.scan_iter(match=f"{prefix}*", count=1000)):
            plain.unlink(*keys)


@pytest.fixture
def config(make_config: MakeConfig, log: LineLogger) -> QueueConfig:
    """A configuration on the test's prefix, with `log` as its logger."""
    return make_config(logger=log)


@pytest.fixture
def queue(config: QueueConfig) -> QueueManager:
    """A manager of `config`."""
    return QueueManager(config)


@pytest.fixture
def client(server: OwnServer) -> Iterator[redis.Redis]:
    """A plain client, for reading what is in Redis and for acting as a foreign program."""
    with server.client(socket_timeout=30) as plain:
        yield plain


@pytest.fixture
async def inbox() -> Inbox:
    """Collects what the test's processors and callbacks receive."""
    return Inbox()


def _close_client(config: QueueConfig) -> None:
    if config.redis_client is not None:
        config.redis_client.close()
