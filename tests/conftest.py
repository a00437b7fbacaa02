"""The fixtures that every test may use: real servers, and for each test a key prefix with what works under it."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis

from queue_system import QueueConfig, QueueManager
from tests.kit.acl import FRESH_PREFIX, AclServer
from tests.kit.configs import MakeConfig, configs
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import NO_REDIS, REDIS, OwnServer, StartServer
from tests.kit.topologies import OwnCluster, OwnSentinel

NO_SKIPS = bool(os.environ.get("QUEUE_SYSTEM_NO_SKIPS"))
TIME_LIMIT = pytest.StashKey[Any]()
FULL_FORM = os.environ.get("QUEUE_SYSTEM_FAULTS") == "full"

hypothesis.settings.register_profile("any machine", deadline=None)  # how fast an example is tells of the machine
hypothesis.settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach what tests start, also in the background of a shell that ignores it there."""
    config.addinivalue_line("markers", "full_form: too long for `make test`; `make faults` runs it")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to `make faults` what is too long for `make test`; give a hundred examples longer than one test."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))
    if FULL_FORM:
        return
    left = [item for item in items if item.get_closest_marker("full_form")]
    if left:
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Generator[None, object, object]:
    """Let the time limit strike again and again: what a test runs may swallow it."""
    handled = yield
    item.stash[TIME_LIMIT] = settings
    if settings.method == "signal":
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, settings.timeout)
    return handled


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """Set the time limit again for what follows a failure: pytest-timeout ends it there, and a teardown may hang."""
    settings = node.stash.get(TIME_LIMIT, None)
    if settings and not settings.func_only:
        node.config.hook.pytest_timeout_set_timer(item=node, settings=settings)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what is skipped where nothing may be: with QUEUE_SYSTEM_NO_SKIPS=1, as in CI."""
    report = yield
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which QUEUE_SYSTEM_NO_SKIPS forbids: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in one last line what was skipped, and how to have it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = Counter(_reason(report) for report in reporter.getreports("skipped")) if reporter else Counter[str]()
    if reporter and skipped:
        reasons = "; ".join(f"{count} since {reason}" for reason, count in skipped.most_common())
        reporter.write_line(f"skipped {skipped.total()}: {reasons}", yellow=True)


@pytest.fixture(scope="session")
def server() -> Iterator[OwnServer]:
    """The server that all tests share. A test leaves it running, and writes under its `prefix` only.

    With QUEUE_SYSTEM_ACL=1, the tests reach it as the worker of docs/acl, and only `client()` may do more.
    """
    with AclServer(FRESH_PREFIX) if os.environ.get("QUEUE_SYSTEM_ACL") else OwnServer() as shared:
        yield shared


@pytest.fixture
def prefix(server: OwnServer) -> Iterator[str]:
    """A fresh key prefix; the keys under it are deleted after the test."""
    fresh = f"t{uuid.uuid4().hex[:12]}:"
    yield fresh
    with server.client() as client:  # all at once: one by one, each deletion would wait for the disk
        if keys := list(client.scan_iter(match=f"{fresh}*", count=1000)):
            client.unlink(*keys)


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers that a test may stop, kill and restart; `OwnServer` says with which options."""
    with contextlib.ExitStack() as started:

        def start(*, binary: Path | None = None, tcp: bool = False, **options: str) -> OwnServer:
            return started.enter_context(OwnServer(binary=binary, tcp=tcp, **options))

        yield start


@pytest.fixture(scope="session")
def shared_sentinel() -> Iterator[OwnSentinel]:
    """A primary, two replicas and three sentinels, which all tests share through `sentinel`."""
    with OwnSentinel() as shared:
        yield shared


@pytest.fixture
def sentinel(shared_sentinel: OwnSentinel) -> Iterator[OwnSentinel]:
    """A primary with replicas under sentinels. A test may kill, freeze and switch them, and writes under `own_prefix`.

    It is whole before the test and after it.
    """
    yield shared_sentinel
    shared_sentinel.heal()


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[OwnCluster]:
    """Three primaries with a replica each, which all tests share through `cluster`."""
    with OwnCluster() as shared:
        yield shared


@pytest.fixture
def cluster(shared_cluster: OwnCluster) -> Iterator[OwnCluster]:
    """Three primaries with a replica each. A test may kill, freeze and switch them, and writes under `own_prefix`.

    It is whole before the test and after it.
    """
    yield shared_cluster
    shared_cluster.heal()


@pytest.fixture
def own_prefix() -> str:
    """A fresh key prefix for a topology, whose data end with it."""
    return f"t{uuid.uuid4().hex[:12]}:"


@pytest.fixture(params=["valkey", "redis"])
def guarded(request: pytest.FixtureRequest) -> Iterator[AclServer]:
    """A server of each kind at hand with the users of docs/acl."""
    old: dict[str, Any] = {"binary": REDIS, "without": "+waitaof"} if request.param == "redis" else {}
    if old and not REDIS.exists():
        pytest.skip(NO_REDIS)
    with AclServer(enable_debug_command="yes", **old) as server:
        yield server


@pytest.fixture
def log() -> LineLogger:
    """The log of `config`."""
    return LineLogger()


@pytest.fixture
def make_config(server: OwnServer, prefix: str) -> Iterator[MakeConfig]:
    """Makes configurations on the test's prefix; each stands for a process of its own."""
    with configs(server.url, prefix) as make:
        yield make


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
