"""The pytest plugin: fixtures with a private server and a fresh prefix for each test.

`pytest_plugins = ["queue_system.testing.plugin"]` in the `conftest.py` at the root of the tests loads it. It is no
entry point: those load in every pytest run of an environment, also in those that have nothing to do with the queue.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import pytest
import redis

from queue_system.broker.urls import check_url
from queue_system.config import QueueConfig
from queue_system.manager import QueueManager
from queue_system.testing.proxy import Proxy
from queue_system.testing.sentinel import Sentinel, private_sentinel
from queue_system.testing.server import private_server
from queue_system.worker import QueueWorker


@pytest.fixture(scope="session")
def queue_server_url() -> Iterator[str]:
    """The URL of the server of this test run: a private one, gone at the end. Override it to use one of yours."""
    with private_server() as url:
        yield url


@pytest.fixture(scope="session")
def queue_sentinel() -> Iterator[Sentinel]:
    """A primary, a replica and a sentinel of this test run: `url` for a configuration, `fail_over`, `kill_primary`.

    Nothing there is deleted after a test: take a prefix for each, such as that of `queue_prefix`.
    """
    with private_sentinel() as sentinel:
        yield sentinel


@pytest.fixture
def queue_prefix(queue_server_url: str) -> Iterator[str]:
    """A key prefix that no other test has. What lies under it is deleted after the test."""
    prefix = f"test-{secrets.token_hex(6)}:"
    yield prefix
    server = redis.Redis.from_url(check_url(queue_server_url), protocol=2)  # a Proxy, if it is one, speaks no other
    with contextlib.closing(server) as client:
        if keys := list(client.scan_iter(match=f"{prefix}*", count=1000)):
            client.unlink(*keys)


@pytest.fixture
def queue_config(queue_server_url: str, queue_prefix: str) -> Iterator[QueueConfig]:
    """A configuration on the test's prefix. Override it to give it your settings, such as `signing_keys`."""
    config = QueueConfig(redis_url=queue_server_url, queue_prefix=queue_prefix)
    with contextlib.closing(config):
        yield config


@pytest.fixture
def queue_manager(queue_config: QueueConfig) -> QueueManager:
    """A manager of `queue_config`."""
    return QueueManager(queue_config)


@pytest.fixture
def queue_worker(queue_config: QueueConfig) -> QueueWorker:
    """A worker of `queue_config`, not started: `run_until_idle` starts it."""
    return QueueWorker(queue_config)


@pytest.fixture
def queue_proxy(queue_server_url: str) -> Iterator[Proxy]:
    """A proxy in front of the server, whose `url` a configuration of the test may use; it passes all until told."""
    with Proxy(queue_server_url) as proxy:
        yield proxy
