"""The queue on a primary that real sentinels watch: every way to name them, what follows a switch, what is refused."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
import redis.asyncio.sentinel
import redis.sentinel
import valkey.asyncio.sentinel
import valkey.sentinel

from queue_system import (
    AccessDeniedError,
    CircuitOpenError,
    QueueConfig,
    QueueManager,
    QueueWorker,
    ServerError,
    ServerUnreachableError,
)
from queue_system.cli.app import run
from queue_system.dashboard import create_app
from queue_system.resilience import CircuitState
from tests.cli.support import clean_environment
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, free_port
from tests.kit.topologies import SERVICE, Node, OwnSentinel
from tests.kit.waiting import eventually, wait_until
from tests.kit.workers import running

SWITCHED = "another server is the primary now"


def client_of(library: Any, topology: OwnSentinel) -> Any:
    """The client of the primary that a library makes."""
    return library.Sentinel([each.address for each in topology.sentinels]).master_for(SERVICE)


@contextlib.contextmanager
def watching(port: int, **options: Any) -> Iterator[Node]:
    """One sentinel, which takes the server at a port for the primary."""
    with Node(sentinel=f"sentinel monitor {SERVICE} 127.0.0.1 {port} 1", **options) as sentinel:
        yield sentinel


@pytest.mark.parametrize(
    "library",
    [redis.sentinel, redis.asyncio.sentinel, valkey.sentinel, valkey.asyncio.sentinel],
    ids=lambda library: str(library.__name__),
)
async def test_a_client_of_sentinels_leads_to_the_primary(
    library: Any, sentinel: OwnSentinel, own_prefix: str, inbox: Inbox
) -> None:
    config = QueueConfig(redis_client=client_of(library, sentinel), queue_prefix=own_prefix)
    with contextlib.closing(config):
        config.register_callback(inbox.put, "take")
        queue = QueueManager(config)
        queue.enqueue({"n": 1}, "take")
        await queue.aenqueue({"n": 2}, "take")
        async with running(QueueWorker(config)):
            assert sorted(each["n"] for each in await inbox.take(2)) == [1, 2]
        assert config.shard.route.moves
        await config.aclose()


async def test_the_dashboard_shows_the_service_and_its_primary(sentinel: OwnSentinel, own_prefix: str) -> None:
    with contextlib.closing(QueueConfig(redis_url=sentinel.url, queue_prefix=own_prefix)) as config:
        transport = httpx.ASGITransport(app=create_app(config), client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as browser:
            page = (await browser.get("/")).text
    assert f"<dd>{SERVICE}</dd>" in page
    assert f"<dd>127.0.0.1:{sentinel.primary.port}</dd>" in page


async def test_an_idle_worker_leaves_a_frozen_server(sentinel: OwnSentinel, own_prefix: str, inbox: Inbox) -> None:
    """It waits for work there, and for an answer that never comes; the work is at the new primary."""
    log = LineLogger()
    config = QueueConfig(redis_url=sentinel.url, queue_prefix=own_prefix, logger=log, connection_timeout=60)
    with contextlib.closing(config):
        config.register_callback(inbox.put, "take")
        async with running(QueueWorker(config)):
            former = sentinel.primary
            await eventually(lambda: former.fields("INFO", "clients")["blocked_clients"] != "0")
            former.freeze()
            await eventually(lambda: sentinel.named() != former.port)
            other = QueueConfig(redis_url=sentinel.url, queue_prefix=own_prefix)
            with contextlib.closing(other):
                QueueManager(other).enqueue({"n": 1}, "take")
                assert await inbox.next() == {"n": 1}
        assert not log.of("server trouble: trying again")
        (told,) = log.of(SWITCHED)
        assert told["service"] == SERVICE
        assert told["former"] == f"127.0.0.1:{former.port}"
        assert told["present"] == f"127.0.0.1:{sentinel.primary.port}"
        assert config.get_metrics()["failovers"] == 1
        await config.aclose()


def test_an_open_breaker_tries_the_new_primary_at_once(sentinel: OwnSentinel, own_prefix: str) -> None:
    config = QueueConfig(redis_url=sentinel.url, queue_prefix=own_prefix, failover_patience=0.1)
    with contextlib.closing(config):
        queue = QueueManager(config)
        queue.enqueue({}, "take")
        former = sentinel.primary
        former.kill()
        while config.breaker.state is not CircuitState.OPEN:
            with pytest.raises(ServerUnreachableError):
                queue.enqueue({}, "take")
        sentinel.wait_until_switched(former.port)
        while True:  # not for 30 s, as it would be without a new primary: the test's own limit is shorter
            with contextlib.suppress(CircuitOpenError, ServerUnreachableError):
                queue.enqueue({}, "take")
                break
        assert config.circuit_state == "closed"


def test_an_open_breaker_tries_a_primary_that_stays_the_same_after_seconds(own_prefix: str) -> None:
    """Not after 30 s, as it would with one server: a switch may take several tries."""
    with OwnServer(tcp=True) as primary, watching(primary.port) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
        config = QueueConfig(redis_url=url, queue_prefix=own_prefix, failover_patience=0.1)
        with contextlib.closing(config):
            queue = QueueManager(config)
            queue.enqueue({}, "take")
            primary.kill()
            while config.breaker.state is not CircuitState.OPEN:
                with pytest.raises(ServerUnreachableError):
                    queue.enqueue({}, "take")
            primary.start()

            def enqueued() -> bool:
                with contextlib.suppress(CircuitOpenError, ServerUnreachableError):
                    return bool(queue.enqueue({}, "take"))
                return False

            wait_until(enqueued, "a call is let through", within_s=20)


def test_a_call_goes_on_for_its_patience_and_no_longer(own_prefix: str) -> None:
    """With nobody to take the primary's place, the error is the one of a server that does not answer."""
    with OwnServer(tcp=True) as primary, watching(primary.port) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
        config = QueueConfig(redis_url=url, queue_prefix=own_prefix, failover_patience=0.5, max_connection_retries=0)
        with contextlib.closing(config):
            queue = QueueManager(config)
            queue.enqueue({}, "take")
            primary.kill()
            with pytest.raises(
                ServerUnreachableError, match=rf"127\.0\.0\.1:{primary.port}/0 \(sentinel service main\)"
            ):
                queue.enqueue({}, "take")


def test_a_primary_that_comes_back_within_the_patience_is_used(own_prefix: str) -> None:
    """The call that waited is carried out once."""
    with OwnServer(tcp=True) as primary, watching(primary.port) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
        with contextlib.closing(QueueConfig(redis_url=url, queue_prefix=own_prefix, failover_patience=60)) as config:
            queue = QueueManager(config)
            queue.enqueue({}, "take")
            primary.kill()
            primary.start()
            assert queue.enqueue({}, "take")["status"] == "queued"
            assert queue.get_queue_status()["total_items"] == 2


def test_what_the_sentinels_do_not_know_is_told_with_the_way_out() -> None:
    nobody = free_port()
    with (
        OwnServer(tcp=True, requirepass="s1") as primary,
        watching(primary.port, requirepass="s3") as sentinel,
    ):
        at = f"127.0.0.1:{sentinel.port}"
        for url, kind, told in (
            (f"redis+sentinel://127.0.0.1:{nobody}/main", ServerUnreachableError, f"no sentinel names .*{nobody}"),
            (f"redis+sentinel://127.0.0.1:{primary.port}/main?sentinel_password=s1", ServerError, "is no sentinel"),
            (f"redis+sentinel://{at}/other?sentinel_password=s3", ServerError, "knows no .*SENTINEL MASTERS"),
            (f"redis+sentinel://{at}/main", AccessDeniedError, "give sentinel_username and sentinel_password"),
            (f"redis+sentinel://{at}/main?sentinel_password=wrong", AccessDeniedError, "sentinel_password"),
            (f"redis+sentinel://{at}/main?sentinel_password=s3", AccessDeniedError, "denies access"),
        ):
            with contextlib.closing(QueueConfig(redis_url=url, failover_patience=0.1)) as config:
                with pytest.raises(kind, match=told) as caught:
                    QueueManager(config).get_queue_status()
                assert "s3" not in str(caught.value)
        url = f"redis+sentinel://:s1@127.0.0.1:{nobody},{at}/main?sentinel_password=s3"
        with contextlib.closing(QueueConfig(redis_url=url)) as config:
            assert QueueManager(config).get_queue_status()["total_items"] == 0


def test_a_planned_failover_from_the_command_line(
    sentinel: OwnSentinel, own_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It tells what it would do, does it, and says who is the primary; with --json as one document."""
    former = sentinel.primary
    url = ["--url", sentinel.url, "--prefix", own_prefix]
    assert run(["failover", *url, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"127.0.0.1:{former.port} is the primary; replicas: 127.0.0.1:" in " ".join(shown.split())
    assert sentinel.primary is former
    assert run(["status", *url, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["service"], status["primary"]) == (SERVICE, f"127.0.0.1:{former.port}")
    assert status["server"] == f"{sentinel.url}/0"
    assert run(["failover", *url, "--yes", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["former"], answer["switched"]) == (f"127.0.0.1:{former.port}", True)
    assert answer["present"] == f"127.0.0.1:{sentinel.wait_until_switched(former.port).port}"
    assert len(answer["replicas"]) == 2


PAUSING = """
import dataclasses, sys
from queue_system.cli import failover
from queue_system.cli.app import run
plan = failover.plan_failover
failover.plan_failover = lambda sentinels: dataclasses.replace(plan(sentinels), coordinated=False)
sys.exit(run(sys.argv[1:]))
"""
"""The command as it is where sentinels do not know COORDINATED."""
PAUSED = "writes are paused"
SWITCHING = "the sentinels switch"


@pytest.mark.parametrize("signs", [SWITCHING, PAUSED], ids=["once the sentinels are told", "before"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_planned_failover_only_while_it_can_be_taken_back(
    sentinel: OwnSentinel, own_prefix: str, number: signal.Signals, signs: str
) -> None:
    """Else what the old primary took meanwhile would be lost; and nobody finds writes paused afterwards."""
    if signs == PAUSED:
        frozen = sentinel.replicas[0]
        frozen.freeze()
    former = sentinel.primary.port
    words = (sys.executable, "-c", PAUSING, "failover", "--yes", "--url", sentinel.url, "--prefix", own_prefix)
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=clean_environment()) as program:
        assert program.stderr is not None
        said = b""
        while signs.encode() not in said:
            said += program.stderr.readline()
        program.send_signal(number)
        said += program.stderr.read()
    with contextlib.closing(QueueConfig(redis_url=sentinel.url, queue_prefix=own_prefix)) as config:
        started = time.monotonic()
        QueueManager(config).enqueue({}, "shop.work")
        assert time.monotonic() - started < 10.0, "writes go on"
    if signs == SWITCHING:
        assert program.returncode == 0, said
        assert sentinel.wait_until_switched(former).port != former
    else:
        assert program.returncode != 0
        frozen.thaw()


def test_a_timeout_that_ends_while_the_sentinels_switch_loses_nothing(sentinel: OwnSentinel, own_prefix: str) -> None:
    former = sentinel.primary.port
    words = (sys.executable, "-c", PAUSING, "failover", "--yes", "--timeout", "1.3")
    done = subprocess.run(
        [*words, "--url", sentinel.url, "--prefix", own_prefix],
        capture_output=True,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sentinel.named() != former


def test_of_two_failovers_at_once_one_says_that_the_other_is_under_way(sentinel: OwnSentinel, own_prefix: str) -> None:
    words = (sys.executable, "-c", PAUSING, "failover", "--yes", "--url", sentinel.url, "--prefix", own_prefix)
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, env=clean_environment()) for _ in range(2)]
    said = [program.communicate(timeout=120)[1] for program in both]
    codes = sorted(program.returncode for program in both)
    assert codes[0] == 0, said
    if codes[1]:
        assert any(b"under way" in each or b"no replica" in each for each in said), said


def test_a_failover_that_cannot_be_is_refused(server: OwnServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One server, nobody to switch to, nobody there: each has its exit code, and nothing is paused."""
    assert run(["failover", "--url", server.url, "--yes"]) == 2
    assert "redis+sentinel://" in capsys.readouterr().err
    assert run(["failover", "--url", f"redis+sentinel://127.0.0.1:{free_port()}/main", "--yes"]) == 3
    with OwnServer(tcp=True) as primary, watching(primary.port) as alone:
        url = f"redis+sentinel://127.0.0.1:{alone.port}/{SERVICE}"
        assert run(["failover", "--url", url]) == 4
        assert "no replica" in capsys.readouterr().err
        with primary.client() as client:
            client.set("x", 1)
