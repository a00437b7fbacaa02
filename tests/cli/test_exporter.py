"""`exporter`: ends in order, and says on one line what it cannot do."""

from __future__ import annotations

import signal
import socket

import httpx
import pytest

from tests.cli.support import RunProgram, started
from tests.kit.servers import free_port
from tests.kit.waiting import wait_until


def test_it_serves_until_it_is_told_to_leave(place: dict[str, str]) -> None:
    """And tells at its start where, for which server and prefix."""
    port = free_port()
    with started("exporter", "--http", f"127.0.0.1:{port}", **place) as process:

        def metrics() -> str:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/metrics").text
            except httpx.HTTPError:
                return ""

        wait_until(lambda: "queue_system_fleet_up{" in metrics(), "it serves", 30.0)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"http://127.0.0.1:{port}/metrics" in told.decode()
    assert place["QUEUE_SYSTEM_PREFIX"] in told.decode()
    assert b"Traceback" not in told


@pytest.mark.parametrize("address", ["9201", "taken"])
def test_an_address_that_cannot_be_had_is_one_line(program: RunProgram, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = program("exporter", "--http", address if address != "taken" else f"127.0.0.1:{taken.getsockname()[1]}")
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert [line for line in answer.err.splitlines() if line.startswith("Error: http: ")]
