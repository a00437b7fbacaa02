"""The pages that read: what they show, that hostile texts stay texts, and that an outage does not take them down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.dashboard import create_app, serve
from queue_system.dashboard.rendering import MOST_SHOWN, ago, duration, moment, visible
from queue_system.dashboard.sampler import Sampler
from queue_system.inspection.workers import read_workers
from tests.dashboard.hostile import CORPUS
from tests.dashboard.support import (
    OURS,
    TOKEN,
    Elements,
    browsing,
    bury,
    dead_letter,
    links_to_dead_letters,
    posted,
    served,
)
from tests.kit.acl import AclServer
from tests.kit.logs import LineLogger
from tests.kit.processes import environment
from tests.kit.servers import OwnServer, StartServer, free_port
from tests.kit.waiting import eventually, wait_until
from tests.kit.workers import running

PASSWORD = "canary-of-the-dashboard"


async def double(entity: Any) -> Any:
    return entity["n"] * 2


async def test_the_overview_shows_the_fleet(config: QueueConfig, queue: QueueManager) -> None:
    queue.enqueue_batch([{}] * 1234, "shop.send", queue_name="invoices", priority="high")
    queue.enqueue({}, "shop.send", queue_name="later", delay=100)
    async with browsing(create_app(config)) as client:
        page = Elements((await client.get("/")).text)
    assert "Waiting 1,234" in page.text
    assert "Delayed 1" in page.text
    assert "invoices high 1,234" in page.text
    assert "redis closed" in page.text


async def test_every_page_tells_of_a_queue_that_workers_leave_alone(config: QueueConfig) -> None:
    config.transport.run(config.commands.rest("host:1", [("charge", 30_000, "shop.lacking.charge: <b>no module</b>")]))
    async with browsing(create_app(config)) as client:
        pages = [Elements((await client.get(path)).text).text for path in ("/", "/queues", "/dead-letters")]
    assert all("Queue charge is left alone by 1 worker." in page for page in pages)
    assert all("shop.lacking.charge: <b>no module</b>" in page for page in pages)


async def test_a_delayed_operation_tells_when_it_was_enqueued_and_is_due(
    config: QueueConfig, queue: QueueManager
) -> None:
    operation_id = queue.enqueue({}, "shop.send", delay=3600)["operation_id"]
    record = queue.get_operation(operation_id)
    assert record is not None
    async with browsing(create_app(config)) as client:
        page = Elements((await client.get("/operations", params={"id": operation_id})).text).text
    assert f"Enqueued {moment(record.enqueued_at)}" in page
    assert f"Due {moment(record.due_at)}" in page


async def test_queues_are_listed_and_found_by_name(config: QueueConfig, queue: QueueManager) -> None:
    for name, n in (("mails", 2), ("exports", 30)):
        queue.enqueue_batch([{}] * n, "shop.send", queue_name=name)
    async with browsing(create_app(config)) as client:
        every = Elements((await client.get("/queues")).text).text
        some = Elements((await client.get("/queues", params={"name": "mai"})).text).text
        none = Elements((await client.get("/queues", params={"name": "<b>"})).text).text
    assert every.index("exports normal 30") < every.index("mails normal 2")
    assert "mails normal 2" in some
    assert "exports" not in some
    assert "No queue has “<b>” in its name." in none


async def test_an_operation_is_shown_from_queued_to_its_result(config: QueueConfig, queue: QueueManager) -> None:
    config.register_callback(double)
    queue.enqueue({"n": 21}, double, operation_id="op/1 %?#&", priority="low")
    async with browsing(create_app(config)) as client:
        queued = Elements((await client.get("/operations", params={"id": "op/1 %?#&"})).text)
        assert "queued" in queued.text
        assert any("data-refresh" in attributes for attributes in queued.all("div"))
        async with running(QueueWorker(config)):
            await queue.await_for("op/1 %?#&", 10)
        done = Elements((await client.get("/operations", params={"id": "op/1 %?#&"})).text)
    assert "succeeded" in done.text
    assert "Result 42" in done.text
    assert not any("data-refresh" in attributes for attributes in done.all("div"))


async def test_a_large_result_is_cut_and_can_be_downloaded(config: QueueConfig, queue: QueueManager) -> None:
    async def much(entity: Any) -> Any:
        return "<b>" + "x" * 500_000

    config.register_callback(much)
    queue.enqueue({}, much, operation_id="much")
    async with running(QueueWorker(config)):
        await queue.await_for("much", 10)
    async with browsing(create_app(config)) as client:
        page = await client.get("/operations", params={"id": "much"})
        whole = await client.get("/operations/text", params={"id": "much"})
        assert (await client.get("/operations/text", params={"id": "no"})).status_code == 404
    assert MOST_SHOWN < len(page.text) < 3 * MOST_SHOWN
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.text == json.dumps("<b>" + "x" * 500_000)


async def test_what_is_not_known_is_told_so(config: QueueConfig) -> None:
    async with browsing(create_app(config)) as client:
        for operation_id in ("nobody", 'un"usable', "x" * 300):
            answer = await client.get("/operations", params={"id": operation_id})
            assert answer.status_code == 404
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/events", params={"view": "nothing"})).status_code == 404


async def test_workers_show_where_they_run_and_what_they_hold(config: QueueConfig, queue: QueueManager) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(entity: Any) -> None:
        begun.set()
        await may_end.wait()

    config.register_callback(slow)
    queue.enqueue({}, slow)
    async with running(QueueWorker(config, queues=["slow", "reports"])), browsing(create_app(config)) as client:
        await begun.wait()
        await eventually(lambda: [each for each in read_workers(config) or () if each.queues], "a beat has told of it")
        page = Elements((await client.get("/workers")).text).text
        may_end.set()
    assert " slow, reports 0 1 0 ms ago alive" in page
    assert f"{socket.gethostname()}:{os.getpid()}" in page


def assert_tame(page: str) -> None:
    """Check that a page holds no element, handler or address but ours."""
    elements = Elements(page)
    known = {
        "a", "body", "button", "code", "dd", "div", "dl", "dt", "form", "h1", "h2", "head", "header", "html", "input",
        "label", "link", "main", "meta", "nav", "option", "p", "polygon", "polyline", "pre", "rect", "script",
        "section", "select", "span", "strong", "svg", "table", "tbody", "td", "th", "thead", "time", "title", "tr",
        "wbr",
    }  # fmt: skip
    assert {tag for tag, _ in elements.found} <= known
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name in {"style", "srcdoc", "http-equiv"}]
        for name in ("href", "src", "action", "formaction"):
            value = attributes.get(name)
            assert value is None or value.startswith(("/", "#main")), f"{tag} leads to {value}"
            assert value is None or not value.startswith("//")
    assert [(attributes.get("src") or "").rpartition("/")[2] for attributes in elements.all("script")] == ["app.js"]


async def test_hostile_texts_in_addresses_stay_texts(config: QueueConfig) -> None:
    async with browsing(create_app(config)) as client:
        for text in CORPUS.values():
            for path, name in (("/queues", "name"), ("/operations", "id"), ("/dead-letters", "queue"),
                               ("/dead-letters", "error"), ("/dead-letters", "note"), ("/dead-letters", "cursor"),
                               ("/dead-letters", "source"), ("/dead-letters", "age")):  # fmt: skip
                answer = await client.get(path, params={name: text.encode(errors="surrogatepass")})
                assert answer.status_code in {200, 400, 404}
                assert_tame(answer.text)


async def test_hostile_names_of_lists_and_workers_stay_texts(config: QueueConfig, raw: redis.Redis) -> None:
    """They were written by another client; lists of such names are none of ours."""
    prefix = config.keys.prefix
    for text in CORPUS.values():
        encoded = text.encode(errors="surrogatepass")
        raw.sadd(f"{prefix}registry", prefix.encode() + b"normal:" + encoded)
        raw.hset(f"{prefix}workers", b"w@" + encoded, b"1:" + encoded)
        raw.hset(f"{prefix}metrics", encoded, encoded)
    async with browsing(create_app(config)) as client:
        for path in ("/", "/queues", "/workers"):
            page = (await client.get(path)).text
            assert_tame(page)
        assert "\u202e" not in page
        assert "\\u202e" in page


@given(st.text(st.characters()) | st.floats() | st.integers(), st.floats())
def test_whatever_is_shown_can_be_sent(value: Any, now: float) -> None:
    """Any text and any number becomes a text that UTF-8 can carry."""
    texts = [str(visible(value))]
    if not isinstance(value, str):
        texts += [duration(value), moment(value), ago(value, now)]
    for text in texts:
        assert text.encode().decode() == text


def test_what_cannot_be_seen_is_shown() -> None:
    assert visible("a\x00\u202e\ud800b\nc") == "a\\x00\\u202e\\ud800b\nc"
    assert visible("plain ü") == "plain ü"
    assert visible(7) == 7


async def test_pages_are_answered_while_the_server_is_down(start_server: StartServer) -> None:
    """With a banner and the last figures; when the server is back, the banner goes."""
    server = start_server(tcp=True)
    config = QueueConfig(redis_url=server.url, logger=LineLogger(), connection_timeout=0.5, max_connection_retries=0)
    QueueManager(config).enqueue_batch([{}] * 77, "shop.send", queue_name="invoices")
    async with browsing(create_app(config)) as client:

        async def shown(path: str = "/") -> str:
            return Elements((await client.get(path)).text).text

        assert "does not answer" not in await shown()
        server.kill()
        await _until(shown, "does not answer", present=True)
        assert "Waiting 77" in await shown()
        for path in ("/", "/queues", "/workers", "/operations"):
            assert (await client.get(path)).status_code == 200
        for path in ("/operations?id=x", "/dead-letters"):
            assert (await client.get(path)).status_code == 503
        server.start()
        await _until(shown, "does not answer", present=False)


async def _until(show: Any, text: str, *, present: bool) -> None:
    async with asyncio.timeout(15):
        while (text in await show()) is not present:  # noqa: ASYNC110 - a page offers no event to wait for
            await asyncio.sleep(0.05)


async def test_a_dashboard_that_never_reached_its_server_shows_so() -> None:
    config = QueueConfig(redis_url="redis://127.0.0.1:1/0", logger=LineLogger(), max_connection_retries=0)
    async with browsing(create_app(config)) as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert "does not answer" in Elements(answer.text).text


async def test_no_page_shows_the_password_of_the_server(start_server: StartServer) -> None:
    """Not while it works, not while it is down, not in an error, and not in a reason that quotes an address."""
    server = start_server(tcp=True, requirepass=PASSWORD)
    config = QueueConfig(redis_url=server.url, logger=LineLogger(), connection_timeout=0.5, max_connection_retries=0)
    reason = f"cannot connect to {server.url}"
    dead_letter = {
        "operation_id": "o",
        "processor": "p",
        "queue": "normal:q",
        "failure_reason": reason,
        "failed_at": 1.0,
    }
    with server.client() as client:
        client.lpush("queue:failures", json.dumps(dead_letter))
    await _fail(config, reason)
    pages = ["/", "/queues", "/workers", "/operations?id=x", "/operations/text?id=x", "/dead-letters",
             "/dead-letters?cursor=x"]  # fmt: skip
    async with browsing(create_app(config)) as browser:
        texts = [(await browser.get(path)).text for path in pages]
        assert all("cannot connect to redis://:***@" in texts[i] for i in (3, 4, 5))
        one = links_to_dead_letters(texts[5])[0]
        texts.append((await browser.get(one)).text)
        server.kill()
        texts += [(await browser.get(path)).text for path in pages]
    assert PASSWORD not in "".join(texts)


async def _fail(config: QueueConfig, reason: str) -> None:
    async def unreachable(entity: Any) -> None:
        raise ConnectionError(reason)

    queue = QueueManager(config)
    await queue.aenqueue({}, unreachable, operation_id="x", retry_config=QueueRetryConfig(max_attempts=1))
    async with running(QueueWorker(config)):
        await queue.await_for("x", 10)


async def test_many_viewers_cost_what_one_costs(config: QueueConfig) -> None:
    """All who watch get the very same snapshots, from one reading of the server."""
    sampler = Sampler(config)

    async def take(n: int) -> list[Any]:
        seen = []
        async for snapshot in sampler.follow():
            seen.append(snapshot)
            if len(seen) == n:
                break
        return seen

    first, *others = await asyncio.gather(*(take(2) for _ in range(20)))
    await sampler.close()
    assert [snapshot.serial for snapshot in first] == [1, 2]
    assert all(seen[i] is first[i] for seen in others for i in range(2))


def test_a_stream_tells_of_what_is_enqueued(config: QueueConfig, queue: QueueManager) -> None:
    """Over real HTTP, and only what has changed is sent again."""
    with (
        served(create_app(config)) as address,
        httpx.stream("GET", f"{address}/events?view=overview", timeout=10) as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        told = (json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line)
        assert next(told).keys() == {"state", "banner", "badge", "overview"}
        queue.enqueue_batch([{}] * 4321, "shop.send")
        for changed in told:
            if "4,321" in changed.get("overview", ""):
                break
        assert changed.keys() <= {"overview"}


def test_the_numbers_of_dead_letters_are_live_and_their_list_says_that_it_is_not(
    config: QueueConfig, raw: redis.Redis
) -> None:
    """A list that moved by itself would move another dead letter under a selection."""
    with served(create_app(config)) as address:
        page = httpx.get(f"{address}/dead-letters?queue=mails", timeout=10).text
        assert "the list below stays as it is" in page
        again = next(a["href"] or "" for a in Elements(page).all("a") if a.get("id") == "again")
        assert "queue=mails" in again
        with httpx.stream("GET", f"{address}/events?view=dead_letters", timeout=10) as stream:
            told = (json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line)
            assert {name for name in next(told) if f'data-live="{name}"' in page} >= {
                "failures",
                "system_errors",
                "badge",
            }
            bury(raw, config, *(dead_letter(n) for n in range(17)))
            next(changed for changed in told if "17" in changed.get("failures", ""))


async def test_a_stream_ends_so_that_its_viewer_is_asked_again(
    config: QueueConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_system.dashboard.live._LONGEST_STREAM_S", 0.0)
    async with browsing(create_app(config)) as client:
        answer = await client.get("/events", params={"view": "overview"})
    assert answer.text.count("data: ") == 1


def test_it_can_be_mounted_under_a_path(config: QueueConfig, queue: QueueManager) -> None:
    """Every address in its pages, its redirects and its cookie then begins with that path."""
    app = FastAPI()
    app.mount("/ops/queues", create_app(config, token=TOKEN))
    with served(app) as address, httpx.Client(base_url=address, headers={"accept": "text/html"}) as client:
        sent = client.get("/ops/queues/")
        assert sent.headers["location"] == "/ops/queues/login"
        ours = {**OURS, "origin": address}
        entered = client.post("/ops/queues/login", data={"token": TOKEN}, headers=ours)
        assert entered.headers["location"] == "/ops/queues/"
        assert "Path=/ops/queues" in entered.headers["set-cookie"]
        for path in ("/ops/queues/", "/ops/queues/queues", "/ops/queues/dead-letters/", "/ops/queues/dead-letters"):
            page = client.get(path)
            assert page.status_code == 200
            elements = Elements(page.text)
            names = ("href", "src", "action", "formaction", "data-events")
            addresses = [a.get(name) for _, a in elements.found for name in names if a.get(name)]
            assert all(each == "#main" or str(each).startswith("/ops/queues/") for each in addresses)
        assert client.get(elements.all("script")[0]["src"] or "").status_code == 200


def test_serve_ends_in_order_while_somebody_watches(server: OwnServer, prefix: str) -> None:
    """A stream of live figures does not keep it from ending."""
    port = free_port()
    program = (
        "from queue_system import QueueConfig; from queue_system.dashboard import serve;"
        f"serve(QueueConfig(redis_url={server.url!r}, queue_prefix={prefix!r}), '127.0.0.1', {port})"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=environment())
    try:
        wait_until(lambda: _answers(port), "the dashboard answers")
        with httpx.stream("GET", f"http://127.0.0.1:{port}/events?view=overview", timeout=10) as stream:
            assert next(stream.iter_lines()).startswith("data: ")
            process.send_signal(signal.SIGTERM)
            process.wait(10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in {0, -signal.SIGTERM}


def test_a_port_that_is_taken_is_told(config: QueueConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        serve(config, "127.0.0.1", taken.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    except httpx.TransportError:
        return False


async def test_the_sampler_rests_when_nobody_looks(config: QueueConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_system.dashboard.sampler._UNWATCHED_S", 0.1)
    sampler = Sampler(config)
    await sampler.current()
    await eventually(lambda: sampler._task is not None and sampler._task.done(), "it rests")
    assert (await sampler.current()).serial >= 1
    await sampler.close()


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_a_user_of_the_server_with_few_rights_is_enough(role: str) -> None:
    """With the rights that docs/acl gives to a viewer, pages show what there is; an operator can change it, too."""
    with AclServer() as server, contextlib.closing(server.client()) as admin:
        settings: Any = {"logger": LineLogger(), "connection_timeout": 2.0}
        admin.hset("queue:workers", "0123456789abcdef@web-1:77", "1:15000")
        admin.hset("queue:inflight:0123456789abcdef@web-1:77", mapping={"1": "normal:q\n{}", "#claim": "c 1"})
        config = QueueConfig(redis_url=server.url_of(role), **settings)
        bury(admin, config, dead_letter(1))
        QueueManager(QueueConfig(redis_url=server.url_of("producer"), **settings)).enqueue({}, "shop.send")
        async with browsing(create_app(config, writable=True)) as client:
            texts = [Elements((await client.get(path)).text).text for path in ("/", "/workers", "/dead-letters")]
            changed = await posted(client, data={"action": "retry"})
    assert "Waiting 1" in texts[0]
    assert "web-1:77 0123456789abcdef 1 " in texts[1]
    assert "send_ invoice op-000001" in texts[2]
    assert changed.status_code == (303 if role == "operator" else 403)
