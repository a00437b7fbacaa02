"""Behind a proxy, or as if: who is refused, what is believed, and where links, cookies and redirects lead."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.applications import Starlette

from queue_system import InvalidInputError, QueueConfig
from queue_system.dashboard import create_app
from queue_system.dashboard.access import COOKIE
from tests.dashboard.support import HTML, OURS, TOKEN, browsing, posted

PROXY = ("10.0.0.1", 40000)
FORWARDING = [
    {"forwarded": "for=192.0.2.7"}, {"via": "1.1 proxy"}, {"x-real-ip": "192.0.2.7"}, {"x-forwarded-for": "192.0.2.7"},
    {"x-forwarded-for": "127.0.0.1"}, {"x-forwarded-host": "localhost"}, {"x-forwarded-proto": "https"},
    {"x-forwarded-prefix": "/ops"}, {"x-forwarded-anything": ""}, {"cf-connecting-ip": "192.0.2.7"},
    {"true-client-ip": "192.0.2.7"}, {"x-client-ip": "192.0.2.7"}, {"x-original-url": "/"},
]  # fmt: skip
PATHS = ("/", "/queues", "/workers", "/operations?id=x", "/dead-letters", "/nowhere", "/login")


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:href|src|action|formaction|data-events)="([^"]*)"', page)


@pytest.mark.parametrize("headers", FORWARDING)
async def test_without_a_token_whatever_came_through_a_proxy_is_refused(
    config: QueueConfig, headers: dict[str, str]
) -> None:
    """Behind a proxy on this machine, everybody would look like this machine. The answer says how to do it."""
    async with browsing(create_app(config)) as client:
        for path in ("/", "/events", "/assets/0/app.js"):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 403
            assert "--trusted-proxies" in answer.text
        assert (await client.get("/")).status_code == 200
    async with browsing(create_app(config, token=TOKEN)) as client:
        assert (await client.get("/login", headers=headers)).status_code == 200


def test_a_trusted_proxy_needs_a_rule_who_may_come(config: QueueConfig) -> None:
    with pytest.raises(InvalidInputError, match="trusted_proxies"):
        create_app(config, trusted_proxies=["127.0.0.1"])
    create_app(config, auth=lambda _: True, trusted_proxies=["127.0.0.1", "10.0.0.0/8", "::1"])


@pytest.mark.parametrize("cut", [True, False], ids=["cut-off", "kept"])
@pytest.mark.parametrize("path", PATHS)
async def test_below_a_root_path_every_address_stays_below_it(config: QueueConfig, path: str, cut: bool) -> None:
    """Whether or not the proxy cuts the path off."""
    async with browsing(create_app(config, auth=lambda _: True, root_path="/ops/q")) as client:
        answer = await client.get(path if cut else f"/ops/q{path}".rstrip("/"))
        assert answer.status_code in {200, 303, 404}
        led = [*addresses(answer.text), *filter(None, [answer.headers.get("location")])]
        assert led
        assert all(each.startswith(("/ops/q/", "#")) for each in led), led
        if answer.status_code == 200:
            assert "path=/ops/q;" in answer.headers["set-cookie"].lower()
            style = next(each for each in led if each.endswith(".css"))
            assert (await client.get(style.removeprefix("/ops/q") if cut else style)).status_code == 200


async def test_a_root_path_named_as_a_page_is_one_that_the_proxy_cuts_off(config: QueueConfig) -> None:
    async with browsing(create_app(config, auth=lambda _: True, root_path="/queues")) as client:
        assert "<title>Queues" in (await client.get("/queues")).text
        assert "<title>Overview" in (await client.get("/")).text


async def test_a_prefix_is_believed_of_a_trusted_proxy_only(config: QueueConfig) -> None:
    app = create_app(config, auth=lambda _: True, trusted_proxies=["10.0.0.0/24"])
    headers = {"x-forwarded-prefix": "/ops", "x-forwarded-proto": "https", "x-forwarded-host": "queues.example.org"}
    async with browsing(app, peer=PROXY) as client:
        answer = await client.get("/queues", headers=headers)
        assert all(each.startswith(("/ops/", "#")) for each in addresses(answer.text))
        cookie = answer.headers["set-cookie"].lower()
        assert "path=/ops;" in cookie
        assert "; secure" in cookie
        for nonsense in ("//evil.example.org", "https://evil.example.org", "/a\\b", "/../x", '/"><script>'):
            page = (await client.get("/queues", headers={**headers, "x-forwarded-prefix": nonsense})).text
            assert "evil" not in page
            assert all(re.match(r"/[a-z]|/$|#", each) for each in addresses(page))
    async with browsing(app, peer=("10.0.1.1", 40000)) as client:
        answer = await client.get("/queues", headers=headers)
        assert "/ops" not in answer.text
        assert "secure" not in answer.headers["set-cookie"].lower()


async def test_a_form_passes_through_a_trusted_proxy_that_changes_the_host(config: QueueConfig) -> None:
    app = create_app(
        config, token=TOKEN, writable=True, root_path="/ops", trusted_proxies=["10.0.0.1"],
        allowed_hosts=["queues.example.org"],
    )  # fmt: skip
    sent = {
        "x-forwarded-host": "queues.example.org", "x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7",
        "origin": "https://queues.example.org", "host": "inside:9180",
    }  # fmt: skip
    async with browsing(app, peer=PROXY, base="https://inside:9180") as client:
        entered = await client.post("/login", data={"token": TOKEN}, headers=sent)
        assert (entered.status_code, entered.headers["location"]) == (303, "/ops/")
        carried = {**sent, "cookie": f"{COOKIE}={entered.cookies[COOKIE]}"}
        page = (await client.get("/dead-letters", headers=carried)).text
        changed = await posted(client, page=page, headers=carried)
        assert (changed.status_code, changed.headers["location"][:17]) == (303, "/ops/dead-letters")
        strange = {**sent, "x-forwarded-host": "rebound.example.org"}
        assert (await client.get("/", headers=strange)).status_code == 421


async def test_wrong_tokens_are_counted_for_whom_the_trusted_proxy_names(config: QueueConfig) -> None:
    """What the client itself wrote in front of that is not believed."""
    app = create_app(config, token=TOKEN, trusted_proxies=["10.0.0.1"])

    async def status(forwarded: str, token: str = "x" * 16) -> int:
        headers = {**OURS, "x-forwarded-for": forwarded}
        return int((await client.post("/login", data={"token": token}, headers=headers)).status_code)

    async with browsing(app, peer=PROXY) as client:
        for n in range(10):
            assert await status(f"203.0.113.{n}, 192.0.2.7") == 403
        assert await status("203.0.113.99, 192.0.2.7") == 429
        assert await status("192.0.2.8", TOKEN) == 303


@pytest.mark.parametrize(
    "path",
    ["/queues/", "/dead-letters/", "//evil.example.org/", "//evil.example.org", "/login//", "/dead-letters/failures/",
     "/assets/", "/%2f%2fevil.example.org/", "/\\evil.example.org/"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_no_redirect_leads_where_the_client_says(config: QueueConfig, method: str, path: str) -> None:
    """Neither the name in `Host` nor a path that looks like a site becomes a place to go to."""
    app = create_app(config, token=TOKEN)
    async with browsing(app) as client:
        request = client.build_request(method, "http://localhost", headers={"host": "evil.example.org", **OURS, **HTML})
        request.url = request.url.copy_with(raw_path=path.encode())
        request.headers["origin"] = "http://evil.example.org"
        answer = await client.send(request)
    location = answer.headers.get("location", "/")
    assert re.match(r"/([a-z]|$)", location), location
    assert "evil" not in location


@pytest.mark.parametrize("path", ["/", "/events", "/nowhere", "/login"])
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_websocket_s_handshake_is_refused(config: QueueConfig, path: str, token: str | None) -> None:
    """Also by a server that knows WebSockets, where it is no HTTP request any more."""
    app = create_app(config, token=token)
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "ws",
        "subprotocols": [], "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    async with browsing(app) as client:
        headers = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
        assert 400 <= (await client.get(path, headers=headers)).status_code < 500


async def test_a_head_of_the_stream_ends(config: QueueConfig) -> None:
    app: Starlette = create_app(config)
    async with browsing(app) as client:
        answer = await client.head("/events")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        for method in ("OPTIONS", "TRACE", "CONNECT"):
            assert 400 <= (await client.request(method, "/")).status_code < 500
