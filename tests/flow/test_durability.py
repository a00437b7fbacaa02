"""`durability`: an enqueue that returns has reached what it asked for, and says so when it has not."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_system import InvalidInputError, QueueManager, UnconfirmedError
from tests.kit.configs import MakeConfig
from tests.kit.operations import work
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import eventually

OpenQueue = Callable[..., QueueManager]


@pytest.fixture
def open_queue(make_config: MakeConfig) -> OpenQueue:
    """Opens a manager of a server of the test's own."""

    def opened(server: OwnServer, **settings: object) -> QueueManager:
        return QueueManager(make_config(redis_url=server.url, connection_timeout=2.0, **settings))

    return opened


async def in_step(replica: OwnServer) -> None:
    with contextlib.closing(replica.client()) as client:
        await eventually(lambda: client.info("replication")["master_link_status"] == "up", "the replica is in step", 20)


def test_fsync_returns_when_the_operation_is_on_disk(start_server: StartServer, open_queue: OpenQueue) -> None:
    """The server is killed right after; with appendfsync everysec, up to a second would be lost otherwise."""
    server = start_server(appendfsync="everysec")
    queue = open_queue(server)
    for n in range(5):
        queue.enqueue({"n": n}, work, durability="fsync")
        server.kill()
        server.start()
        assert queue.get_queue_status()["total_items"] == n + 1
    queue.enqueue_batch([{"n": n} for n in range(2500)], work, durability="fsync")
    server.kill()
    server.start()
    status = queue.get_queue_status()
    assert status["total_items"] == 2505
    assert status["metrics"]["confirmed"] == 2505


def test_what_is_waited_for_is_written_first_even_if_the_server_has_forgotten_the_script(
    start_server: StartServer, open_queue: OpenQueue
) -> None:
    """As it has after a restart."""
    server = start_server()
    queue = open_queue(server)
    queue.enqueue({}, work, durability="fsync")
    with contextlib.closing(server.client()) as client, client.monitor() as monitor:
        client.script_flush()
        queue.enqueue({}, work, durability="fsync")
        names = []
        while "WAITAOF" not in names:
            names.append(monitor.next_command()["command"].split()[0].upper())
    assert "LPUSH" in names


def test_the_server_gives_up_before_a_connection_with_a_shorter_limit_of_its_own(
    start_server: StartServer, open_queue: OpenQueue
) -> None:
    server = start_server()
    with contextlib.closing(server.client(socket_timeout=0.5)) as own:
        queue = open_queue(server, redis_client=own)
        with contextlib.closing(server.client()) as client, client.monitor() as monitor:
            queue.enqueue({}, work, durability="fsync")
            seen: list[str] = []
            while sum(command.startswith("WAITAOF") for command in seen) < 2:
                seen.append(monitor.next_command()["command"])
    assert {command for command in seen if command.startswith("WAITAOF")} == {"WAITAOF 1 0 400"}


def test_an_append_only_file_that_is_switched_off_later_is_noticed(
    start_server: StartServer, open_queue: OpenQueue
) -> None:
    """The operation at which it shows is queued, so it is told of; the next is refused before anything is written."""
    server = start_server()
    queue = open_queue(server)
    queue.enqueue({}, work, durability="fsync")
    with contextlib.closing(server.client()) as client:
        client.config_set("appendonly", "no")
        with pytest.raises(UnconfirmedError) as caught:
            queue.enqueue({}, work, operation_id="mine", durability="fsync")
        assert caught.value.operation_ids == ("mine",)
        with pytest.raises(InvalidInputError, match="cannot confirm 'fsync'"):
            queue.enqueue({}, work, durability="fsync")
        assert queue.get_queue_status()["total_items"] == 2
        client.config_set("appendonly", "yes")
        assert queue.enqueue({}, work, operation_id="mine", durability="fsync")["status"] == "duplicate"


async def test_the_async_twin_notices_it_too(start_server: StartServer, open_queue: OpenQueue) -> None:
    server = start_server()
    queue = open_queue(server)
    await queue.aenqueue({}, work, durability="fsync")
    with contextlib.closing(server.client()) as client:
        client.config_set("appendonly", "no")
    with pytest.raises(UnconfirmedError):
        await queue.aenqueue_batch([{}, {}], work, durability="fsync")
    with pytest.raises(InvalidInputError, match="cannot confirm 'fsync'"):
        await queue.aenqueue({}, work, durability="fsync")
    assert queue.get_queue_status()["total_items"] == 3
    await queue.config.aclose()


def test_the_default_of_the_configuration_holds_for_every_enqueue(
    start_server: StartServer, open_queue: OpenQueue
) -> None:
    queue = open_queue(start_server(), durability="fsync")
    queue.enqueue({}, work)
    queue.enqueue_batch([{}, {}], work)
    queue.enqueue({}, work, durability="fast")
    assert queue.get_queue_status()["metrics"]["confirmed"] == 3


@pytest.mark.parametrize(
    "durability, missing, told",
    [
        ("fsync", "append-only file", "this server cannot confirm 'fsync': .*appendonly"),
        ("fsync", "WAITAOF", r".*7\.2"),
        ("replicated", "replica", "this server cannot confirm 'replicated' now; it needs a replica"),
    ],
)
def test_what_a_server_cannot_confirm_is_refused_before_anything_is_written(
    start_server: StartServer, open_queue: OpenQueue, tmp_path: Path, durability: Any, missing: str, told: str
) -> None:
    without_waitaof = tmp_path / "settings"
    without_waitaof.write_text('rename-command WAITAOF ""\n')
    options = {"append-only file": {"appendonly": "no"}, "WAITAOF": {"include": str(without_waitaof)}, "replica": {}}
    settings: dict[str, Any] = options[missing]
    queue = open_queue(start_server(**settings))
    with pytest.raises(InvalidInputError, match=f"durability: {told}"):
        queue.enqueue({}, work, durability=durability)
    assert queue.get_queue_status()["total_items"] == 0


async def test_replicated_returns_when_a_replica_has_the_operation_and_says_what_is_unknown_when_none_confirms(
    start_server: StartServer, open_queue: OpenQueue
) -> None:
    primary = start_server(tcp=True, repl_diskless_sync_delay="0")
    replica = start_server(tcp=True, replicaof=f"127.0.0.1 {primary.port}")
    await in_step(replica)
    queue = open_queue(primary)
    answer = queue.enqueue({}, work, durability="replicated")
    with replica.client() as client:
        assert client.exists(queue.config.keys.operation(answer["operation_id"]))
    replica.kill()
    with pytest.raises(UnconfirmedError, match=r"'replicated' was not confirmed within 1\.6 s") as caught:
        queue.enqueue({}, work, operation_id="mine", durability="replicated")
    assert caught.value.operation_ids == ("mine",)
    assert queue.get_queue_status()["total_items"] == 2
    replica.start()
    await in_step(replica)
    assert queue.enqueue({}, work, operation_id="mine", durability="replicated")["status"] == "duplicate"
    assert queue.get_queue_status()["total_items"] == 2


def test_a_connection_lost_while_waiting_confirms_nothing_by_mistake(
    start_server: StartServer, open_queue: OpenQueue
) -> None:
    """All is sent again on the new connection: a fresh one has written nothing, so a server would confirm at once."""
    server = start_server()
    queue = open_queue(server)
    queue.enqueue({}, work, durability="fsync")
    with contextlib.closing(server.client()) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert queue.enqueue({}, work, durability="fsync")["status"] == "queued"
    assert queue.get_queue_status()["metrics"] == {"enqueued": 2, "confirmed": 2}


def test_an_unconfirmed_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnconfirmedError("fsync", ["a", "b", "c", "d"], 4.0)))  # noqa: S301 - our own
    assert (error.durability, error.operation_ids, error.waited_s) == ("fsync", ("a", "b", "c", "d"), 4.0)
    assert str(error).endswith("a, b, c, …")
