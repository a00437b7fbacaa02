"""The Django example over real HTTP: Django's own server, a real database, a worker process; enqueued on commit."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.kit.servers import OwnServer
from tests.kit.source import ROOT
from tests.kit.waiting import wait_until
from tests.web.support import EXAMPLES, free_port, program, serving, worker

FOLDER = EXAMPLES / "django_app"
SETTINGS = {"DJANGO_SETTINGS_MODULE": "examples.django_app.settings"}


@pytest.fixture(scope="module")
def own() -> Iterator[OwnServer]:
    """A server of this module's own: the example uses the default prefix."""
    with OwnServer() as server:
        yield server


@pytest.fixture(scope="module")
def variables(own: OwnServer) -> dict[str, str]:
    """What the project's processes share: the settings and a database with its tables."""
    shared = SETTINGS | {"DATABASE": str(own.folder / "db.sqlite3")}
    with program("-m", "django", "migrate", "--run-syncdb", cwd=ROOT, server=own, variables=shared) as process:
        assert process.wait(30) == 0
    return shared


@pytest.fixture(scope="module")
def service(own: OwnServer, variables: dict[str, str]) -> Iterator[httpx.Client]:
    """The project, as docs/django.md starts it."""
    port = free_port()
    arguments = ("-m", "django", "runserver", "--noreload", str(port))
    with serving(*arguments, port=port, cwd=ROOT, server=own, variables=variables) as client:
        yield client


def test_a_committed_order_is_confirmed_by_a_worker(
    service: httpx.Client, own: OwnServer, variables: dict[str, str]
) -> None:
    answer = service.post("/orders", json={"article": "tea"})
    assert answer.status_code == 202
    location = answer.headers["location"]
    assert service.get(location).json() == {"confirmed": False, "operation": "queued"}
    with worker("examples.django_app.background:config", ROOT, own, **variables):
        wait_until(lambda: service.get(location).json()["operation"] == "succeeded", "the order is confirmed")
    assert service.get(location).json()["confirmed"]


def test_an_order_that_is_rolled_back_is_not_enqueued(service: httpx.Client, own: OwnServer) -> None:
    with own.client() as client:
        before = client.hget("queue:metrics", "enqueued")
        assert service.post("/orders", json={"article": "tea", "amount": 0}).status_code == 422
        assert client.hget("queue:metrics", "enqueued") == before


@pytest.mark.parametrize("name", ["background.py", "views.py"])
def test_the_guide_shows_the_example_as_it_is(name: str) -> None:
    guide = (ROOT / "docs/django.md").read_text(encoding="utf-8")
    assert (FOLDER / name).read_text(encoding="utf-8") in guide
