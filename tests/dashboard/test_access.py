"""Who may reach the dashboard and change something: each rule by a request that is refused and one that passes."""

from __future__ import annotations

import asyncio
import hmac
import time
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from queue_system import InvalidInputError, QueueConfig
from queue_system.dashboard import create_app, serve
from queue_system.dashboard.access import COOKIE, SESSION_S, Access
from queue_system.dashboard.server import check_bind
from queue_system.dashboard.shield import MOST_FORM_BYTES
from queue_system.dashboard.throttle import MOST_FAILURES, WINDOW_S, Throttle
from tests.dashboard.support import OURS, TOKEN, browsing, form_token, posted

BEARER = {"authorization": f"Bearer {TOKEN}"}
PAGES = ("/", "/queues", "/operations?id=x", "/workers", "/dead-letters", "/events", "/nowhere")


async def status_of(app: Starlette, path: str = "/", **settings: Any) -> int:
    async with browsing(app, **settings) as client:
        return int((await client.get(path)).status_code)


async def session(client: httpx.AsyncClient, token: str = TOKEN) -> httpx.Response:
    return await client.post("/login", data={"token": token}, headers=OURS)


async def cookie_of_a_session(client: httpx.AsyncClient) -> dict[str, str]:
    """The header of a new session, which the client itself then forgets."""
    await session(client)
    cookie = {"cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
    client.cookies.clear()
    return cookie


@pytest.mark.parametrize(
    "field, value",
    [
        ("config", "redis://localhost"), ("token", "short"), ("token", 5), ("auth", "yes"), ("writable", "no"),
        ("allowed_hosts", "example.org"), ("allowed_hosts", [5]), ("root_path", 5), ("root_path", "a b"),
        ("token", ""), ("token", "123456789012345"), ("token", b"bytes-bytes-bytes"), ("secret", "text"),
        *(("trusted_proxies", value) for value in ("10.0.0.1", [5], [7.5], ["x"], ["10.0.0.1/8"], None)),
        *(("root_path", value) for value in ("ops", "//evil.example.org", "/a/../b", "/a b", "/a?b", "/\\evil",
                                             "/" + "a" * 300)),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(config: QueueConfig, field: str, value: Any) -> None:
    """Such as `writable="no"`, which would let visitors write, and 5, which would be the network 0.0.0.5/32."""
    arguments: dict[str, Any] = {"config": config, "token": TOKEN, field: value}
    with pytest.raises(InvalidInputError) as caught:
        create_app(**arguments)
    assert caught.value.field == field
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org", ""])  # noqa: S104 - refused
def test_a_host_that_others_reach_needs_a_token_or_a_hook(config: QueueConfig, host: str) -> None:
    with pytest.raises(InvalidInputError, match="host"):
        serve(config, host, 0)
    check_bind(host, TOKEN, None)
    check_bind(host, None, lambda _: True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_none(host: str) -> None:
    check_bind(host, None, None)


async def test_without_token_only_this_machine_is_answered(config: QueueConfig) -> None:
    """Neither another machine nor another name that leads here, as by DNS rebinding, is answered."""
    assert await status_of(create_app(config)) == 200
    assert await status_of(create_app(config), base="http://127.0.0.1:9180") == 200
    assert await status_of(create_app(config), base="http://[::1]:9180") == 200
    assert await status_of(create_app(config), peer=("192.0.2.7", 40000)) == 403
    assert await status_of(create_app(config), base="http://rebound.example.org") == 421
    assert await status_of(create_app(config), base="http://127.0.0.1.example.org") == 421


async def test_allowed_hosts_name_the_only_names(config: QueueConfig) -> None:
    def app() -> Starlette:
        return create_app(config, auth=lambda _: True, allowed_hosts=["Queues.example.org"])

    assert await status_of(app(), base="https://queues.example.org") == 200
    assert await status_of(app()) == 200
    assert await status_of(app(), base="https://rebound.example.org") == 421
    assert await status_of(app(), base="https://192.0.2.9") == 421


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_shown_to_who_brings_the_token(config: QueueConfig, path: str) -> None:
    """Without it, a browser is sent to the login, and anything else is told what is missing."""
    async with browsing(create_app(config, token=TOKEN), headers={}) as client:
        refused = await client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        for wrong in (f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN):
            assert (await client.get(path, headers={"authorization": wrong})).status_code == 401
        sent = await client.get(path, headers={"accept": "text/html"})
        assert (sent.status_code, sent.headers["location"]) == (303, "/login")
        if path != "/events":
            assert (await client.get(path, headers=BEARER)).status_code in {200, 404}


async def test_the_login_hands_out_a_session_that_is_not_the_token(config: QueueConfig) -> None:
    async with browsing(create_app(config, token=TOKEN)) as client:
        assert (await session(client, "wrong")).status_code == 403
        assert (await client.get("/")).status_code == 303
        entered = await session(client)
        cookie = entered.headers["set-cookie"]
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert TOKEN not in cookie
        assert (await client.get("/")).status_code == 200
        value = client.cookies[COOKIE]
        client.cookies.set(COOKIE, value[:-1] + ("0" if value[-1] != "0" else "1"), domain="localhost.local", path="/")
        client.cookies.clear()
        forged = {"cookie": f"{COOKIE}={value[:-1]}x"}
        assert (await client.get("/", headers=forged)).status_code == 303


async def test_the_session_is_secure_where_the_page_is(config: QueueConfig) -> None:
    async with browsing(create_app(config, token=TOKEN), base="https://localhost") as client:
        entered = await client.post("/login", data={"token": TOKEN}, headers={"origin": "https://localhost"})
        assert "; Secure" in entered.headers["set-cookie"]


def test_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is worth nothing after its time, under another token, or with another end written into it."""
    access = Access(TOKEN, None, writable=False, allowed_hosts=None)
    cookie = access.new_session()
    assert access.is_session(cookie)
    assert not Access(TOKEN + "2", None, writable=False, allowed_hosts=None).is_session(cookie)
    end, rest = cookie.split(".", 1)
    assert not access.is_session(f"{int(end) + 1}.{rest}")
    for nonsense in ("", ".", "..", "x.y.z", "\udcff.\udcff", "1" * 10_000):
        assert not access.is_session(nonsense)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + SESSION_S + 1)
    assert not access.is_session(cookie)


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every secret goes through hmac.compare_digest, on both sides of equal length."""
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def spy(a: Any, b: Any) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    access = Access(TOKEN, None, writable=False, allowed_hosts=None)
    assert access.is_token(TOKEN)
    assert not access.is_token("x")
    assert compared == [(32, 32), (32, 32)]


async def test_a_hook_decides_for_each_request(config: QueueConfig) -> None:
    """A sync or an async one."""

    def knows(connection: HTTPConnection) -> bool:
        return connection.headers.get("x-user") == "ada"

    async def knows_async(connection: HTTPConnection) -> bool:
        await asyncio.sleep(0)
        return knows(connection)

    for hook in (knows, knows_async):
        assert await status_of(create_app(config, auth=hook), headers={"x-user": "ada"}) == 200
        assert await status_of(create_app(config, auth=hook), headers={"x-user": "eve"}) == 403


async def test_a_dashboard_only_reads_unless_it_is_told_otherwise(config: QueueConfig) -> None:
    async with browsing(create_app(config)) as client:
        assert "Retry" not in (await client.get("/dead-letters")).text
        sure = {"action": "drop", "scope": "matching", "source": "failures"}
        reading = await client.get("/dead-letters/sure", params=sure)
        assert (reading.status_code, (await posted(client)).status_code) == (403, 403)
    async with browsing(create_app(config, writable=True)) as client:
        assert (await posted(client)).status_code == 303


async def test_a_write_needs_the_token_of_a_form_that_this_browser_was_given(config: QueueConfig) -> None:
    app = create_app(config, writable=True)
    async with browsing(app) as client:
        mine = form_token((await client.get("/dead-letters")).text)
        client.cookies.clear()
        other = (await client.get("/dead-letters")).text
        wrongs: list[Any] = [[], "", mine, b"\xff", "0" * 64]  # a list of none sends none
        for wrong in wrongs:
            assert (await posted(client, page=other, data={"form_token": wrong})).status_code == 403
        assert (await posted(client, page=other)).status_code == 303
        client.cookies.clear()
        assert (await posted(client, page=other)).status_code == 403


@pytest.mark.parametrize("way_in", ["session", "bearer"])
async def test_a_write_under_a_token_needs_it_too(config: QueueConfig, way_in: str) -> None:
    async with browsing(create_app(config, token=TOKEN, writable=True)) as client:
        if way_in == "session":
            await session(client)
        else:
            client.headers.update(BEARER)
        assert (await posted(client, data={"form_token": []})).status_code == 403
        assert (await posted(client)).status_code == 303


@pytest.mark.parametrize("proof", ["Basic YWRhOnB3", "Bearer a.proxys.jwt", f"Bearer {TOKEN}x"])
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_write_passes_where_a_hook_reads_an_authorization_of_its_own(
    config: QueueConfig, proof: str, token: str | None
) -> None:
    """A header that is not our token proves nothing to us: the browser gets a cookie, as any other does."""
    app = create_app(config, token=token, auth=lambda asked: asked.headers.get("authorization") == proof, writable=True)
    async with browsing(app, headers={"authorization": proof}) as client:
        page = (await client.get("/dead-letters")).text
        assert COOKIE in client.cookies
        assert (await posted(client, page=page)).status_code == 303
        client.cookies.clear()
        assert (await posted(client, page=page)).status_code == 403


CROSS = [
    {"origin": "https://evil.example.org"},
    {"origin": "https://evil.example.org", "sec-fetch-site": "cross-site"},
    {"origin": "http://localhost:8080"},
    {"origin": "null"},
    {"origin": "null", "sec-fetch-site": "cross-site"},
    {"origin": "http://localhost", "sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {},
]
SAME = [
    {"origin": "http://localhost"},
    {"origin": "null", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "same-origin"},
]


@pytest.mark.parametrize(
    "headers, status", [*((headers, 403) for headers in CROSS), *((headers, 303) for headers in SAME)]
)
async def test_a_write_passes_from_a_page_of_ours_and_from_no_other_origin(
    config: QueueConfig, headers: dict[str, str], status: int
) -> None:
    async with browsing(create_app(config, token=TOKEN, writable=True)) as client:
        assert (await client.post("/login", data={"token": TOKEN}, headers=headers)).status_code == status
        await session(client)
        assert (await posted(client, headers=headers)).status_code == status
        data = {"form_token": form_token((await client.get("/dead-letters")).text)}
        assert (await client.post("/logout", data=data, headers=headers)).status_code == status
        assert (await client.get("/")).status_code == (303 if status == 303 else 200)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
async def test_nothing_is_changed_by_another_method_than_post(config: QueueConfig, method: str) -> None:
    async with browsing(create_app(config, writable=True)) as client:
        data = {"action": "drop", "scope": "matching", "source": "failures"}
        data["form_token"] = form_token((await client.get("/dead-letters")).text)
        answer = await client.request(method, "/dead-letters/change", data=data, headers=OURS)
        assert answer.status_code == 405


async def test_a_form_has_a_bounded_size(config: QueueConfig) -> None:
    async with browsing(create_app(config, writable=True)) as client:
        assert (await posted(client, data={"letter_id": "x" * MOST_FORM_BYTES})).status_code == 413
        assert (await posted(client, data={"letter_id": ["x"] * 3000})).status_code == 400

        async def endless() -> Any:
            yield b"a=b"

        assert (await client.post("/dead-letters/change", content=endless(), headers=OURS)).status_code == 411


@pytest.mark.parametrize(
    "path", ["/", "/dead-letters", "/login", "/nowhere", "/dead-letters/change", "/assets/0/app.js"]
)
async def test_every_answer_carries_the_headers(config: QueueConfig, path: str) -> None:
    """Refusals too."""
    async with browsing(create_app(config, token=TOKEN)) as client:
        for headers in ({}, BEARER, {"host": "a b"}):
            answer = await client.get(path, headers=headers)
            policy = {part.strip() for part in answer.headers["content-security-policy"].split(";")}
            assert {
                "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
                "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'",
            } <= policy  # fmt: skip
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert answer.headers["cache-control"] == "no-store"


async def test_only_the_assets_may_be_kept(config: QueueConfig) -> None:
    """Their address changes with their content, and they hold no data."""
    async with browsing(create_app(config, token=TOKEN)) as client:
        page = (await client.get("/login")).text
        address = page.split('rel="stylesheet" href="')[1].split('"')[0]
        answer = await client.get(address)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")
        assert "immutable" in answer.headers["cache-control"]
        assert (await client.get(address.replace("app.css", "app.py"))).status_code == 404


async def test_no_secret_stands_in_an_address(config: QueueConfig) -> None:
    """Neither the token nor a form's token is asked for, or sent on, in one."""
    async with browsing(create_app(config, token=TOKEN, writable=True)) as client:
        assert (await client.get("/", params={"token": TOKEN})).status_code == 303
        entered = await session(client)
        page = await client.get("/dead-letters")
        for answer in (entered, await posted(client)):
            assert TOKEN not in answer.headers["location"]
            assert "form_token" not in answer.headers["location"]
        assert 'method="get"' not in page.text


async def test_a_hook_that_fails_lets_nobody_in(config: QueueConfig) -> None:
    """The answer tells nothing of the error, and carries the headers."""

    def broken(_: HTTPConnection) -> bool:
        raise RuntimeError("canary")

    app = create_app(config, auth=broken)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/")
    assert answer.status_code == 500
    assert "canary" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_session_that_was_signed_out_is_worth_nothing_to_who_has_a_copy(config: QueueConfig) -> None:
    """Another session of the same token goes on."""
    app = create_app(config, token=TOKEN)
    async with browsing(app) as client:
        copy, other = await cookie_of_a_session(client), await cookie_of_a_session(client)
        assert (await client.get("/", headers=copy)).status_code == 200
        data = {"form_token": form_token((await client.get("/", headers=copy)).text)}
        assert (await client.post("/logout", data=data, headers={**OURS, **copy})).status_code == 303
        assert (await client.get("/", headers=copy)).status_code == 303
        assert (await client.post("/logout", data=data, headers={**OURS, **copy})).status_code == 401
        assert (await client.get("/", headers=other)).status_code == 200


def test_what_ended_is_remembered_up_to_a_bound_and_no_longer_than_it_would_have_lasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("queue_system.dashboard.access._MOST_ENDED", 3)
    access = Access(TOKEN, None, writable=False, allowed_hosts=None)
    sessions = [access.new_session() for _ in range(5)]
    for each in sessions:
        access.end_session(each)
        access.end_session("forged.cookie.value")
    assert len(access._ended) == 3
    assert not access.is_session(sessions[-1])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + SESSION_S + 1)
    access.end_session(access.new_session())
    assert len(access._ended) == 1


async def test_a_form_token_follows_from_a_secret_and_not_from_the_cookie_alone(config: QueueConfig) -> None:
    """Who can plant a cookie, as a neighbour on the same host can, cannot make the token of a form."""
    async with browsing(create_app(config, writable=True)) as client:
        planted, page = "0" * 32, (await client.get("/dead-letters")).text
        client.cookies.clear()
        for guess in (hmac.new(planted.encode(), b"form", "sha256").hexdigest(),
                      hmac.new(b"", planted.encode(), "sha256").hexdigest()):  # fmt: skip
            headers = {**OURS, "cookie": f"{COOKIE}={planted}"}
            assert (await posted(client, page=page, data={"form_token": guess}, headers=headers)).status_code == 403
    first, second = (Access(None, None, writable=True, allowed_hosts=None) for _ in range(2))
    shared = [Access(None, None, writable=True, allowed_hosts=None, secret=b"s" * 32) for _ in range(2)]
    asked = HTTPConnection({"type": "http", "headers": [(b"cookie", f"{COOKIE}=x".encode())]})
    assert first.form_token(asked, "") != second.form_token(asked, "")
    assert shared[0].form_token(asked, "") == shared[1].form_token(asked, "")


@pytest.mark.parametrize("way", ["form", "bearer"])
async def test_wrong_tokens_are_logged_and_soon_refused_unseen(config: QueueConfig, way: str) -> None:
    """The log tells the address, never what was offered; a session that runs, and who has the token, go on."""
    log: Any = config.logger

    async def offer(token: str) -> httpx.Response:
        if way == "form":
            return await session(client, token)
        answer: httpx.Response = await client.get("/", headers={"authorization": f"Bearer {token}", "accept": "*/*"})
        return answer

    async with browsing(create_app(config, token=TOKEN)) as client:
        running = await cookie_of_a_session(client)
        for n in range(10):
            assert (await offer(f"wrong-guess-number-{n}")).status_code in {401, 403}
        refused = await offer("wrong-guess-number-11")
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert (await session(client)).status_code == 429
        assert (await client.get("/", headers=running)).status_code == 200
        assert (await client.get("/", headers=BEARER)).status_code == 200
    lines = log.of("dashboard refused a wrong token")
    assert [line["failures"] for line in lines] == list(range(1, 11))
    assert {line["client"] for line in lines} == {"127.0.0.1"}
    assert "wrong-guess" not in str(log.__dict__)
    assert [line["client"] for line in log.of("dashboard began a session")] == ["127.0.0.1"]


def test_a_client_may_try_again_after_a_while() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for _ in range(MOST_FAILURES):
        assert throttle.wait_s("2001:db8::1") == 0
        throttle.failed("2001:db8::1")
    assert throttle.wait_s("2001:db8::2") == WINDOW_S, "one network is one client"
    assert throttle.wait_s("2001:db8:1::1") == throttle.wait_s("192.0.2.7") == 0
    now[0] = WINDOW_S
    assert throttle.wait_s("2001:db8::1") == 0
    throttle.failed("192.0.2.7")
    throttle.succeeded("192.0.2.7")
    assert throttle.failed("192.0.2.7") == 1
    for n in range(5000):
        throttle.failed(f"10.0.{n // 256}.{n % 256}")
    assert len(throttle._failures) == 1000
