"""`bench` measures a real server, and leaves nothing behind."""

from __future__ import annotations

import pytest

from queue_system import QueueConfig
from queue_system.cli import bench
from tests.cli.support import RunCli
from tests.kit.servers import StartServer


def test_it_measures_and_leaves_no_key(start_server: StartServer, cli: RunCli) -> None:
    server = start_server(appendfsync="everysec")
    answer = cli("bench", "--url", server.url, "--operations", "1500", "--json")
    assert answer.code == 0
    document = answer.document
    assert {name: document[name]["operations"] for name in ("enqueue", "enqueue_batch", "drain", "latency")} == {
        "enqueue": 100, "enqueue_batch": 1500, "drain": 1600, "latency": 200,
    }  # fmt: skip
    assert all(document[name]["per_second"] > 0 for name in ("enqueue", "enqueue_batch", "drain"))
    assert 0 < document["latency"]["p50_ms"] <= document["latency"]["p99_ms"]
    with server.client() as client:
        assert client.keys("*") == []


def test_an_interrupted_measurement_leaves_no_key(
    start_server: StartServer, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(appendfsync="everysec")

    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "_work", interrupted)
    assert cli("bench", "--url", server.url, "--operations", "100").code == 130
    with server.client() as client:
        assert client.keys("*") == []


@pytest.mark.parametrize(
    "host, local",
    [
        ("localhost", True), ("127.0.0.2", True), ("[::1]", True), ("localhost.example.org", False),
        ("10.0.0.1", False),
    ],
)  # fmt: skip
def test_it_knows_another_machine(host: str, local: bool) -> None:
    assert bench._is_local(QueueConfig(redis_url=f"redis://{host}:6379/0")) is local


def test_another_machine_is_not_loaded_unasked(cli: RunCli) -> None:
    answer = cli("bench", "--url", "redis://queue.example.org:6379/0")
    assert (answer.code, answer.out) == (2, "")
    assert "queue.example.org" in answer.err
    assert "--yes" in answer.err
