"""The canary: a password in a server's URL is in no error, log line, output, or key, whatever goes wrong."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueSystemError, QueueWorker
from tests.faults.support.bench import WorkerProcess
from tests.kit.configs import close
from tests.kit.operations import process
from tests.kit.servers import StartServer
from tests.kit.strange_servers import QuotingServer, serving
from tests.kit.waiting import eventually, wait_until

CANARY = "canary-7f3a91c2-of-the-url"


ADDRESS = "redis://:{canary}@127.0.0.1:{port}/0"
TROUBLES: dict[str, tuple[dict[str, str], str]] = {
    "a wrong password": ({"requirepass": "another"}, ADDRESS),
    "an unknown user": ({}, ADDRESS.replace("//", "//nobody")),
    "a user without rights": ({}, ADDRESS.replace("//", "//shop")),
    "a database that is none": ({"requirepass": CANARY}, ADDRESS.replace("/0", "/9999")),
    "a server without TLS": ({"requirepass": CANARY}, ADDRESS.replace("redis", "rediss")),
    "a server that is down": ({"requirepass": CANARY}, ADDRESS),
    "a full server": ({"requirepass": CANARY, "maxmemory": "1"}, ADDRESS),
}
"""Settings of a server, and how it is reached."""


def url_of(trouble: str, start: StartServer) -> str:
    """Make the trouble, and tell the address with which a user meets it."""
    settings, address = TROUBLES[trouble]
    options: dict[str, Any] = {**settings}
    server = start(tcp=True, **options)
    if trouble == "a user without rights":
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", "shop", "on", f">{CANARY}", "~*", "+ping", "+select")
    if trouble == "a server that is down":
        server.stop()
    return address.format(canary=CANARY, port=server.port)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def told(error: BaseException) -> str:
    """Everything of an error that may be printed: its traceback, notes, and all that led to it."""
    links = [f"{link!r} {link} {link.args!r} {getattr(link, '__notes__', '')}" for link in chain(error)]
    return "\n".join([*traceback.format_exception(error), *links])


def printed(config: QueueConfig) -> str:
    """What a user may print of a configuration and of what holds it."""
    things = (
        config, config.endpoint(), config.transport, config.commands, config.registry, config.breaker, config.log,
        config.metrics, config.keys, QueueManager(config), QueueWorker(config),
    )  # fmt: skip
    return "\n".join(f"{thing!r} {thing}" for thing in things)


def failed_calls(config: QueueConfig) -> str:
    """What the calls of a manager tell when they fail, as at least one does."""
    manager, outputs = QueueManager(config), []
    calls: list[Callable[[], Any]] = [
        lambda: manager.enqueue({"n": 1}, process),
        lambda: manager.enqueue_batch([{"n": 1}], process),
        lambda: config._ensure_redis_sync(0),
    ]
    for call in calls:
        try:
            call()
        except QueueSystemError as error:
            outputs.append(told(error))
    assert outputs
    return "\n".join(outputs)


async def failed_worker(config: QueueConfig, caplog: pytest.LogCaptureFixture) -> str:
    """What a worker tells that meets the same trouble."""
    worker = QueueWorker(config, max_workers=1)
    outputs = []
    for start in (worker.start, lambda: worker._process_queue_item(0)):
        try:
            await start()
        except QueueSystemError as error:
            outputs.append(told(error))
    if worker.running:
        await eventually(
            lambda: "server trouble: " in caplog.text or "at start" not in caplog.text, "the log tells of the trouble"
        )
        await worker.stop()
    return "\n".join(outputs)


async def outputs_of(caplog: pytest.LogCaptureFixture, **settings: Any) -> list[str]:
    """All that a configuration in trouble tells."""
    config = QueueConfig(connection_timeout=0.2, max_connection_retries=0, **settings)
    try:
        return [failed_calls(config), await failed_worker(config, caplog), printed(config)]
    finally:
        close(config)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "trouble, given",
    [*((trouble, "url") for trouble in TROUBLES), ("a wrong password", "client"), ("a wrong password", "environment")],
)
async def test_no_output_of_a_call_or_a_worker_tells_the_password(
    trouble: str,
    given: str,
    start_server: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    url = url_of(trouble, start_server)
    settings: dict[str, Any] = {}
    if given == "url":
        settings["redis_url"] = url
    elif given == "client":
        settings["redis_client"] = redis.Redis.from_url(url)
    else:
        monkeypatch.setenv("REDIS_URL", url)
    outputs = await outputs_of(caplog, **settings)
    outputs += [caplog.text, *(repr(vars(record)) for record in caplog.records), *capfd.readouterr()]
    assert caplog.records
    assert CANARY not in "\n".join(outputs)


@pytest.mark.timeout(20)
async def test_a_server_that_quotes_the_password_does_not_bring_it_into_any_output(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor into what the error came from, which a traceback shows."""
    caplog.set_level(logging.DEBUG)
    with serving(QuotingServer) as port:
        url = f"redis://user:{CANARY}@127.0.0.1:{port}/0"
        outputs = await outputs_of(caplog, redis_url=url)
    assert "***" in outputs[0]
    assert CANARY not in "\n".join([*outputs, caplog.text, *capfd.readouterr()])


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{CANARY}@host:port", f"redis://:{CANARY}/@host", f"redis://:{CANARY}?@host", f"redis://:1/{CANARY}@h",
        f"redis://:{CANARY}@h?unknown=1", f"redis://h?password={CANARY}&db=x", f"redis://h?password=a&{CANARY}",
        f"http://user:{CANARY}@host", f"embedded://user:{CANARY}@host/data", f"user:{CANARY}@host", CANARY,
    ],
)  # fmt: skip
@pytest.mark.parametrize("variable", [None, "QUEUE_SYSTEM_REDIS_URL", "REDIS_URL"])
def test_a_url_that_is_refused_does_not_tell_its_password(
    url: str, variable: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if variable is not None:
        monkeypatch.setenv(variable, url)
    with pytest.raises(QueueSystemError, match=f"^{variable or 'redis_url'}: ") as caught:
        QueueManager(QueueConfig(redis_url=None if variable else url)).enqueue({}, process)
    assert CANARY not in told(caught.value) + caplog.text


@pytest.mark.timeout(60)
def test_a_worker_process_tells_its_password_to_no_log_through_outage_restart_and_revoked_access(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it write it into the server's data."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    server = start_server(tcp=True, requirepass=CANARY)
    settings = {
        "config": {"redis_url": server.url, "lease_seconds": 1.0, "connection_timeout": 0.5},
        "worker": {"max_workers": 2},
        "only_sleeps": False,
        "hooks": {},
    }
    config = QueueConfig(redis_url=server.url)
    worker = WorkerProcess(settings, tmp_path / "journal", tmp_path / "log")
    try:
        worker.wait_ready()
        QueueManager(config).enqueue({"n": 1}, "nowhere.absent")
        wait_until(lambda: "operation rejected" in worker.log, "the operation is rejected")
        server.kill()
        wait_until(lambda: "server trouble" in worker.log, "the outage is noticed")
        server.start()
        wait_until(lambda: "the server answers again" in worker.log, "the server is back")
        with server.client() as admin:
            admin.config_set("requirepass", "another")
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            wait_until(lambda: "AccessDeniedError" in worker.log, "the lost access is noticed")
            admin.config_set("requirepass", CANARY)
        metrics = worker.stop()
    finally:
        worker.kill()
        config.transport.close()
    data = b"".join(file.read_bytes() for file in server.folder.rglob("*.aof"))
    assert b"nowhere" in data
    assert CANARY.encode() not in data
    assert CANARY not in worker.log + json.dumps(metrics)
