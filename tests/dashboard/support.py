"""What the tests of the dashboard have in common: a real server of it, dead letters to show, a way to read HTML."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import redis
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from queue_system import QueueConfig
from queue_system.dashboard import server as dashboard_server
from tests.kit.waiting import wait_until

TOKEN = "a-token-that-nobody-guesses"
HTML = {"accept": "text/html"}
OURS = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}


@contextlib.asynccontextmanager
async def browsing(app: Starlette, *, base: str = "http://localhost", **settings: Any) -> Any:
    """A client that speaks HTTP to the application as a browser on this machine would."""
    settings = {"headers": HTML, **settings}
    transport = httpx.ASGITransport(app, client=settings.pop("peer", ("127.0.0.1", 40000)))
    try:
        async with httpx.AsyncClient(transport=transport, base_url=base, **settings) as client:
            yield client
    finally:
        await app.state.sampler.close()


@contextlib.contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve an application on a free port, in a thread; gives its address."""
    settings = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2)
    has_streams = isinstance(app, Starlette) and hasattr(app.state, "sampler")
    server = (dashboard_server._Server if has_streams else uvicorn.Server)(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the dashboard listens")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def dead_letter(n: int, **members: Any) -> dict[str, Any]:
    """A dead letter as a worker writes it."""
    return {
        "operation_id": f"op-{n:06}",
        "entity": {"n": n},
        "processor": "send_invoice",
        "processor_module": "shop.mails",
        "timestamp": 1_700_000_000.0 + n,
        "attempts": 5,
        "failure_reason": f"no mail server answered, try {n}",
        "error_type": "ConnectionError",
        "failed_at": 1_700_000_100.0 + n,
        "queue": "normal:invoices",
        **members,
    }


def bury(
    client: redis.Redis, config: QueueConfig, *dead_letters: dict[str, Any] | bytes, source: str = "failures"
) -> None:
    """Put dead letters into their list, the last one being the newest."""
    encoded = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in dead_letters]
    for start in range(0, len(encoded), 1000):
        client.lpush(f"{config.keys.prefix}{source}", *encoded[start : start + 1000])


def links_to_dead_letters(page: str) -> list[str]:
    """The addresses of the letters on a page, the newest first."""
    return [a["href"] or "" for a in Elements(page).all("a") if "/failures/" in (a["href"] or "")]


async def posted(client: httpx.AsyncClient, *, page: str = "", **settings: Any) -> httpx.Response:
    """Drop all letters, as the form of a page does; `data` and `headers` may say otherwise."""
    page = page or (await client.get("/dead-letters")).text
    data = {"action": "drop", "scope": "matching", "source": "failures", "form_token": form_token(page)}
    settings = {"headers": OURS, **settings, "data": {**data, **settings.get("data", {})}}
    answer: httpx.Response = await client.post("/dead-letters/change", **settings)
    return answer


def form_token(page: str) -> str:
    """The token that the forms of a page carry."""
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found, "the page has no form"
    return found[1]


class Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    def value(self, name: str) -> str:
        return next(attributes["value"] or "" for attributes in self.all("input") if attributes.get("name") == name)
