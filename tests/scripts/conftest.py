"""The scripts are tested on each server at hand: the one that the package brings, and Redis where it is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.servers import NO_REDIS, REDIS, OwnServer, server_binary
from tests.scripts.support import Broker, W


@pytest.fixture(scope="session", params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> Path:
    """The program of one kind of server."""
    if request.param == "valkey":
        return server_binary()
    if not REDIS.exists():
        pytest.skip(NO_REDIS)
    return REDIS


@pytest.fixture(scope="session")
def server(binary: Path) -> Iterator[OwnServer]:
    """The server that the tests of the scripts share, one of each kind."""
    with OwnServer(binary=binary, appendonly="no") as shared:
        yield shared


@pytest.fixture
def broker(server: OwnServer, prefix: str) -> Iterator[Broker]:
    """The scripts under a fresh prefix, with the incarnation `W` registered."""
    with contextlib.closing(Broker(server, prefix)) as fresh:
        fresh.register(W)
        yield fresh
        fresh.client.delete(fresh.counter)
