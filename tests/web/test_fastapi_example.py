"""The FastAPI example over real HTTP: served by uvicorn, its operations run by a worker process, on a real server."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.kit.servers import OwnServer
from tests.kit.source import ROOT
from tests.kit.waiting import wait_until
from tests.web.support import EXAMPLES, free_port, serving, worker

FOLDER = EXAMPLES / "web_app"
GUIDE = ROOT / "docs/fastapi.md"


@pytest.fixture(scope="module")
def own() -> Iterator[OwnServer]:
    """A server of this module's own: it is frozen, and the example uses the default prefix."""
    with OwnServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(own: OwnServer) -> Iterator[httpx.Client]:
    """The example, as docs/fastapi.md starts it."""
    port = free_port()
    with serving("-m", "uvicorn", "app:app", "--port", str(port), port=port, cwd=FOLDER, server=own) as client:
        yield client


@pytest.fixture
def working(own: OwnServer) -> Iterator[None]:
    """A worker process of the example."""
    with worker("app:config", FOLDER, own):
        yield


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The records of an event stream; comments are skipped."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def enqueue(service: httpx.Client, pages: int = 1) -> str:
    """Where the state of a new operation is."""
    answer = service.post("/reports", json={"title": "sales", "pages": pages})
    assert answer.status_code == 202
    location: str = answer.headers["location"]
    assert location == f"/operations/{answer.json()['operation_id']}"
    return location


def test_a_client_enqueues_and_polls_until_it_has_the_result(service: httpx.Client, working: None) -> None:
    location = enqueue(service)
    wait_until(lambda: service.get(location).json()["finished"], "the report is made")
    record = service.get(location).json()
    assert (record["status"], record["queue"], record["attempts"]) == ("succeeded", "make_report", 1)
    assert record["result"] == {"title": "sales", "file": "sales.pdf"}
    with service.stream("GET", f"{location}/events") as response:
        assert list(events(response)) == [record], "the stream of a finished operation is one event"


def test_a_client_watches_an_operation_to_its_end(service: httpx.Client, own: OwnServer) -> None:
    location = enqueue(service, pages=8)
    with service.stream("GET", f"{location}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        seen = events(response)
        states = [next(seen)["status"]]  # before a worker is there
        with worker("app:config", FOLDER, own):
            states += [record["status"] for record in seen]
    assert states[0] == "queued"
    assert states[-2:] == ["running", "succeeded"]


def test_a_client_that_leaves_ends_its_wait(service: httpx.Client, own: OwnServer) -> None:
    with own.client() as redis:

        def waits() -> int:
            clients: Any = redis.info("clients")
            return int(clients["blocked_clients"])

        wait_until(lambda: waits() == 0, "the workers of other tests are gone")
        location = enqueue(service)
        with service.stream("GET", f"{location}/events") as response:
            seen = events(response)  # kept: its end would close the connection
            assert next(seen)["status"] == "queued"
            wait_until(lambda: waits() == 1, "the stream waits on the server")
        wait_until(lambda: waits() == 0, "nobody waits any more")


@pytest.mark.parametrize("path", ["/operations/nobody-knows-it", "/operations/nobody-knows-it/events"])
def test_an_unknown_operation_is_404(service: httpx.Client, path: str) -> None:
    assert service.get(path).status_code == 404


def test_an_operation_id_that_cannot_be_one_is_422(service: httpx.Client) -> None:
    answer = service.get("/operations/%22")
    assert answer.status_code == 422
    assert answer.json()["field"] == "operation_id"


def test_a_frozen_server_leaves_other_requests_answering(service: httpx.Client, own: OwnServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        os.kill(own.pid, signal.SIGSTOP)
        try:
            waiting = pool.submit(enqueue, service)
            for _ in range(20):
                assert service.get("/health").json() == {"status": "ok"}
            assert not waiting.done()
        finally:
            os.kill(own.pid, signal.SIGCONT)
        assert waiting.result(10).startswith("/operations/")


def test_the_guide_shows_the_example_as_it_is() -> None:
    assert (FOLDER / "app.py").read_text(encoding="utf-8") in GUIDE.read_text(encoding="utf-8")
