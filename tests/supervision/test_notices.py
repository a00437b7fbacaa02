"""What a worker tells its surroundings: systemd over its socket, and probes over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.kit.servers import free_port
from tests.kit.waiting import DEADLINE_S, wait_until
from tests.supervision.support import Bench


class Manager:
    """A service manager that hears its services over a datagram socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(DEADLINE_S)

    def hear(self) -> str:
        return self._socket.recv(1024).decode()

    def hear_until(self, state: str) -> set[str]:
        """Return what was heard before a state."""
        heard = set()
        while (now := self.hear()) != state:
            heard.add(now)
        return heard

    def heard_nothing(self) -> bool:
        return not select.select([self._socket], [], [], 0)[0]

    def close(self) -> None:
        self._socket.close()


def get(port: int, path: str) -> tuple[int, Any]:
    """Return status and body; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            body = answer.read()
            return answer.status, json.loads(body) if body.startswith(b"{") else body.decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError:
        return 0, None


def consumers(port: int) -> int:
    """How many processes are ready, by the probe."""
    status, body = get(port, "/readyz")
    return sum(worker["consuming"] for worker in body["workers"]) if status == 200 else 0


@pytest.mark.parametrize("processes, address", [(1, "{folder}/n"), (2, "@queue-system-test-{pid}")])
def test_systemd_hears_when_the_service_is_ready_lives_and_stops(
    bench: Bench, processes: int, address: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    manager = Manager(address.format(folder=tmp_path, pid=os.getpid()))
    request.addfinalizer(manager.close)
    bench.enqueue(1, seconds=0.5)
    program = bench.start({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}, processes=processes)
    manager.hear_until("READY=1")
    assert bench.client.hlen(f"{bench.prefix}workers") == processes
    bench.wait_for_notes("start", 1)
    manager.hear_until("WATCHDOG=1")
    program.send(signal.SIGTERM)
    assert manager.hear_until("STOPPING=1") <= {"WATCHDOG=1"}
    assert manager.hear() == "WATCHDOG=1", "it still lives while it drains"
    assert program.ends() == 0


def test_a_worker_without_contact_to_the_server_is_not_ready(bench: Bench, tmp_path: Path) -> None:
    with contextlib.closing(Manager(str(tmp_path / "n"))) as manager:
        program = bench.start({"NOTIFY_SOCKET": manager.address, "URL": f"unix://{tmp_path}/absent"})
        program.wait_for("worker started")
        assert manager.heard_nothing()
        program.send(signal.SIGTERM)
        assert manager.hear() == "STOPPING=1"
        assert program.ends() == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_one_address_answers_for_all_processes(bench: Bench, processes: int) -> None:
    port = free_port()
    program = bench.start(processes=processes, http=f"127.0.0.1:{port}")
    wait_until(lambda: consumers(port) == processes, "all processes are ready")
    bench.enqueue(6, seconds=0.0)
    bench.wait_for_notes("end", 6)
    pids = {worker["pid"] for worker in get(port, "/livez")[1]["workers"]}
    assert pids == ({program.process.pid} if processes == 1 else {*program.children()})
    counted = re.compile(r'queue_system_operations_total\{.*outcome="succeeded",.*queue="work",.*\} 6\.0')
    wait_until(lambda: counted.search(get(port, "/metrics")[1]), "all processes are counted")
    if processes > 1:
        victim = program.children()[0]
        os.kill(victim, signal.SIGKILL)
        program.wait_for("worker process died")
        assert get(port, "/readyz")[0] == 200, "the other one works"
        assert counted.search(get(port, "/metrics")[1]), "what the dead one counted stays counted"
    assert program.leaves() == 0
    assert get(port, "/livez")[0] == 0


def test_an_address_that_is_taken_is_told_of(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = bench.start(processes=2, http=f"127.0.0.1:{port}")
        assert program.ends() == 2
        assert program.lines("http: ")
