"""The Flask example over real HTTP: served by Flask's own server, its operations run by a worker process."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.kit.servers import OwnServer
from tests.kit.source import ROOT
from tests.kit.waiting import wait_until
from tests.web.support import EXAMPLES, free_port, serving, worker

FOLDER = EXAMPLES / "flask_app"


@pytest.fixture(scope="module")
def own() -> Iterator[OwnServer]:
    """A server of this module's own: the example uses the default prefix, and it is killed at last."""
    with OwnServer() as server:
        yield server


@pytest.fixture(scope="module")
def service(own: OwnServer) -> Iterator[httpx.Client]:
    """The example, as docs/flask.md starts it."""
    port = free_port()
    with serving("-m", "flask", "run", "--port", str(port), port=port, cwd=FOLDER, server=own) as client:
        yield client


def test_an_image_is_taken_resized_and_shown(service: httpx.Client, own: OwnServer) -> None:
    with worker("app:config", FOLDER, own):
        answer = service.post("/images", json={"name": "cat", "width": 64})
        assert answer.status_code == 202
        location = answer.headers["location"]
        wait_until(lambda: service.get(location).json()["finished"], "the image is resized")
    shown = service.get(location).json()
    assert shown == {"status": "succeeded", "result": {"name": "cat", "width": 64}, "error": None, "finished": True}


def test_errors_have_their_answers(service: httpx.Client, own: OwnServer) -> None:
    assert service.get("/operations/nobody-knows-it").status_code == 404
    refused = service.get("/operations/%22")
    assert (refused.status_code, refused.json()["field"]) == (422, "operation_id")
    own.kill()
    try:
        unavailable = service.post("/images", json={"name": "cat", "width": 64})
    finally:
        own.start()
    assert (unavailable.status_code, unavailable.json()) == (503, {"detail": "the queue is not available"})
    assert unavailable.headers["retry-after"] == "6"


def test_the_guide_shows_the_example_as_it_is() -> None:
    guide = (ROOT / "docs/flask.md").read_text(encoding="utf-8")
    assert (FOLDER / "app.py").read_text(encoding="utf-8") in guide
