"""The specification's two complete programs, each run as its own process against a real server."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from queue_system import QueueConfig
from tests.contract.blocks import BASIC_USAGE, FASTAPI, program
from tests.contract.support import counted, python
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import wait_until

EXIT_WITHIN_S = 5.0
# FastAPI reads a bare `list` from a form (fastapi/fastapi#10393), a list with its elements' type from the JSON body.
AS_FORM: dict[str, Any] = {"data": {"data": ["one", "two", "three"]}}
AS_JSON: dict[str, Any] = {"json": [{"id": 1}, {"id": 2}, {"id": 3}]}


@pytest.fixture
def own(start_server: StartServer) -> OwnServer:
    """A server of the test's own, since the programs use the default prefix."""
    return start_server(tcp=True)


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[str, str]:
    """Signal a process and return what it wrote; it must exit in time."""
    process.send_signal(number)
    return process.communicate(timeout=EXIT_WITHIN_S)


def test_the_basic_usage_script_processes_its_operation_and_ends_at_ctrl_c(own: OwnServer, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(program(BASIC_USAGE, redis_url=own.url))
    config = QueueConfig(redis_url=own.url)
    with python("script.py", cwd=tmp_path) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == (
            "Successfully processed: {'status': 'success', 'result': {'user_id': '123', 'action': 'update'}}\n"
        )
        rest, errors = end(process, signal.SIGINT)

    assert process.returncode in {-signal.SIGINT, 128 + signal.SIGINT}
    assert rest == ""
    assert errors.rstrip().endswith("KeyboardInterrupt")
    for trouble in ("Task was destroyed", "never retrieved", "never awaited", "Exception ignored", "QueueSystemError"):
        assert trouble not in errors
    assert counted(config, "processed") == 1
    with own.client() as client:
        assert client.hlen("queue:workers") == 0
        assert client.llen("queue:high:process_data") == 0


def test_ctrl_c_while_an_operation_runs_puts_it_back_unspent(own: OwnServer, tmp_path: Path) -> None:
    never_ends = BASIC_USAGE.replace(
        "    # Process the data...\n", '    print("started")\n    await asyncio.sleep(3600)\n'
    )
    assert "sleep(3600)" in never_ends
    (tmp_path / "script.py").write_text(program(never_ends, redis_url=own.url))
    with own.client() as client:
        with python("script.py", cwd=tmp_path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            before: Any = client.llen("queue:high:process_data")
            end(process, signal.SIGINT)
        (item,) = client.lrange("queue:high:process_data", 0, -1)

    assert before == 0
    assert b'"attempts"' not in item
    assert b'"crashes"' not in item


@pytest.mark.parametrize(
    "block, batch",
    [
        pytest.param(FASTAPI, AS_FORM, id="as it stands"),
        pytest.param(FASTAPI.replace("data: list)", "data: list[dict])"), AS_JSON, id="with the elements' type"),
    ],
)
def test_the_fastapi_service_answers_at_once_and_its_worker_processes(
    own: OwnServer, tmp_path: Path, block: str, batch: dict[str, Any]
) -> None:
    """Served by uvicorn. The first program precedes it, as in the document: it defines the processor."""
    (tmp_path / "service.py").write_text(program(BASIC_USAGE, block, redis_url=own.url))
    config = QueueConfig(redis_url=own.url)
    address = str(own.folder / "http")
    uvicorn = ("-W", "default::DeprecationWarning", "-m", "uvicorn", "service:app", "--uds", address)
    with python(*uvicorn, cwd=tmp_path) as process:
        wait_until(lambda: process.poll() is not None or _listens(address), "the service listens")
        assert process.poll() is None
        with httpx.Client(transport=httpx.HTTPTransport(uds=address), base_url="http://service") as client:
            one = client.post("/process", json={"user_id": "1"})
            many = client.post("/process-batch", **batch)
        wait_until(lambda: counted(config, "processed") == 5, "all operations are processed")
        output, errors = end(process, signal.SIGTERM)

    assert one.status_code == many.status_code == 200
    assert one.json() == {"operation_id": one.json()["operation_id"], "status": "queued"}
    assert many.json() == {"operation_count": 3, "status": "queued"}
    assert "Successfully processed: " in output, "the first program's callback, imported by name"
    assert "on_event is deprecated" in errors
    assert "Application shutdown complete" in errors
    assert "Traceback" not in errors
    with own.client() as bare:
        assert bare.hlen("queue:workers") == 0


def _listens(address: str) -> bool:
    if not os.path.exists(address):  # noqa: PTH110 - a socket
        return False
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=address)) as client:
            return client.get("http://service/openapi.json").status_code == 200
    except httpx.TransportError:
        return False
