"""The pages of dead letters: filters and pages over many of them, payloads, retry and drop."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import redis

from queue_system import QueueConfig, QueueManager
from queue_system.dashboard import create_app
from queue_system.dashboard.dead_letters import PAGE
from queue_system.dashboard.rendering import MOST_SHOWN
from tests.dashboard.hostile import CORPUS
from tests.dashboard.support import (
    OURS,
    Elements,
    browsing,
    bury,
    dead_letter,
    form_token,
    links_to_dead_letters,
    posted,
)
from tests.dashboard.test_pages import assert_tame

MANY = 100_000


def shown(page: str | Elements) -> list[str]:
    """The operation ids of the dead letters on a page."""
    elements = page if isinstance(page, Elements) else Elements(page)
    return [word for word in elements.text.split() if word.startswith("op-")]


def link(page: str, label: str) -> str:
    """The address of a link of ours, by the id it has."""
    return next(attributes["href"] or "" for attributes in Elements(page).all("a") if attributes.get("id") == label)


async def change(client: httpx.AsyncClient, page: str, **members: Any) -> Elements:
    """Send the form of a page, and return the page to which it leads."""
    answer = await posted(client, page=page, data={"scope": [], **members})  # of none, unless it says so
    assert answer.status_code == 303
    return Elements((await client.get(answer.headers["location"])).text)


@pytest.mark.parametrize("length", [270, 3970])
async def test_a_password_is_hidden_where_its_address_is_cut(
    config: QueueConfig, raw: redis.Redis, length: int
) -> None:
    """What is cut away still tells that it was a password."""
    bury(raw, config, dead_letter(1, failure_reason="y" * length + f" redis://ada:{'canary' * 10}@host/0"))
    async with browsing(create_app(config)) as client:
        page = (await client.get("/dead-letters")).text
        one = links_to_dead_letters(page)[0]
        for text in (page, Elements((await client.get(one)).text).text.partition(" Payload ")[0]):
            assert "yyy" in text
            assert "canary" not in text


async def test_a_hundred_thousand_dead_letters_are_paged_and_filtered(config: QueueConfig, raw: redis.Redis) -> None:
    """The newest come first, each page goes on where the last one ended, and a filter finds the oldest of all."""
    bury(raw, config, *(dead_letter(n, processor="oldest" if n == 0 else "send_invoice") for n in range(MANY)))
    async with browsing(create_app(config)) as client:
        page = (await client.get("/dead-letters")).text
        seen = shown(page)
        for _ in range(3):
            page = (await client.get(link(page, "older"))).text
            seen += shown(page)
        assert seen == [f"op-{n:06}" for n in range(MANY - 1, MANY - 1 - 4 * PAGE, -1)]
        assert shown((await client.get(link(page, "first"))).text) == seen[:PAGE]
        found = (await client.get("/dead-letters", params={"processor": "oldest"})).text
        assert shown(found) == ["op-000000"]
        assert 'id="older"' not in found
        one = links_to_dead_letters(page)[0]
        assert parse_qs(urlsplit(one).query)["from"]
        assert seen[3 * PAGE] in Elements((await client.get(one)).text).text


async def test_filters_choose(config: QueueConfig, raw: redis.Redis) -> None:
    now = time.time()
    bury(
        raw, config,
        dead_letter(1, queue="high:mails", failed_at=now - 7200),
        dead_letter(2, processor="resize", processor_module="shop.images", failed_at=now - 60),
        dead_letter(3, failure_reason="disk full", error_type="OSError", failed_at=now - 60),
    )  # fmt: skip
    bury(raw, config, dead_letter(4), source="system_errors")
    async with browsing(create_app(config)) as client:
        for filters, expected in (
            ({}, [3, 2, 1]),
            ({"queue": "mails"}, [1]),
            ({"processor": "resize"}, [2]),
            ({"processor": "shop.mails.send_invoice"}, [3, 1]),
            ({"error": "DISK"}, [3]),
            ({"age": "15min"}, [3, 2]),
            ({"age": "older-1h"}, [1]),
            ({"queue": "nobody"}, []),
            ({"source": "system_errors"}, [4]),
        ):
            page = (await client.get("/dead-letters", params=filters)).text
            assert shown(page) == [f"op-{n:06}" for n in expected], filters
            for value in filters.values():
                assert f'value="{value}"' in page
        for wrong in ({"source": "elsewhere"}, {"age": "never"}):
            assert (await client.get("/dead-letters", params=wrong)).status_code == 404
        assert (await client.get("/dead-letters", params={"cursor": "x"})).status_code == 400


async def test_a_payload_of_a_megabyte_is_cut_and_can_be_downloaded(config: QueueConfig, raw: redis.Redis) -> None:
    """The page stays small; the download is the dead letter, byte for byte, as a text that no browser interprets."""
    entity = "<script>alert(1)</script>" + "é" * 500_000
    bury(raw, config, dead_letter(1, entity=entity))
    async with browsing(create_app(config)) as client:
        listed = (await client.get("/dead-letters")).text
        address = links_to_dead_letters(listed)[0]
        page = await client.get(address)
        assert len(page.text) < 2 * MOST_SHOWN + 8192
        assert_tame(page.text)
        whole = await client.get(f"{address}/text")
        assert (await client.get("/dead-letters/failures/nothing")).status_code == 404
        assert (await client.get("/dead-letters/elsewhere/nothing/text")).status_code == 404
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.content == json.dumps(dead_letter(1, entity=entity)).encode()


async def test_a_payload_that_is_deep_and_large_costs_what_is_shown(config: QueueConfig, raw: redis.Redis) -> None:
    """Indented as a whole, it would be 450 MB; a page shows its beginning at once, and the loop serves others."""
    deep = b'{"operation_id": "op-deep", "entity": ' + b"[" * 450 + b"1," * 500_000 + b"1" + b"]" * 450 + b"}"
    bury(
        raw, config, deep, dead_letter(1, processor="p" * 500_000, error_type="e" * 500_000, operation_id="i" * 500_000)
    )
    async with browsing(create_app(config)) as client, asyncio.timeout(10):
        listed = await client.get("/dead-letters")
        assert len(listed.text) < 20_000
        addresses = set(links_to_dead_letters(listed.text))
        pages = await asyncio.gather(*(client.get(address) for address in sorted(addresses) * 3))
        assert {page.status_code for page in pages} == {200}
        assert max(len(page.text) for page in pages) < 2 * MOST_SHOWN + 8192
        assert any("[…]" in page.text for page in pages)


async def test_hostile_dead_letters_stay_texts(config: QueueConfig, raw: redis.Redis) -> None:
    """In every member, as the bytes of the whole dead letter, and as a name where there should be one."""
    async with browsing(create_app(config, writable=True)) as client:
        for text in CORPUS.values():
            raw.delete(config.keys.failures)
            bury(
                raw, config, dict.fromkeys(dead_letter(0), text),
                dead_letter(1, entity={text: [text, {text: text}]}, failure_reason=text),
                dead_letter(2, error_type=text, processor=text, operation_id=text, queue=f"normal:{text}"),
                text.encode(errors="surrogatepass") or b" ", json.dumps([text]).encode(),
            )  # fmt: skip
            listed = (await client.get("/dead-letters")).text
            assert_tame(listed)
            addresses = set(links_to_dead_letters(listed))
            assert len(addresses) == 5
            for address in addresses:
                answer = await client.get(address)
                assert answer.status_code == 200
                assert_tame(answer.text)
                assert (await client.get(f"{address}/text")).headers["x-content-type-options"] == "nosniff"


async def test_one_dead_letter_is_retried(config: QueueConfig, queue: QueueManager, raw: redis.Redis) -> None:
    bury(raw, config, dead_letter(1), dead_letter(2))
    async with browsing(create_app(config, writable=True)) as client:
        listed = (await client.get("/dead-letters")).text
        address = links_to_dead_letters(listed)[0]
        page = (await client.get(address)).text
        after = await change(client, page, action="retry", letter_id=Elements(page).value("letter_id"))
    assert "1 dead letter retried." in after.text
    assert shown(after) == ["op-000001"]
    assert queue.get_queue_status()[f"{config.keys.prefix}normal:invoices"] == 1


async def test_selected_dead_letters_are_dropped(config: QueueConfig, raw: redis.Redis) -> None:
    """After a page that asks."""
    bury(raw, config, *map(dead_letter, range(4)))
    async with browsing(create_app(config, writable=True)) as client:
        page = (await client.get("/dead-letters")).text
        ids = [a["value"] for a in Elements(page).all("input") if a.get("name") == "letter_id"][:2]
        data = {"form_token": form_token(page), "source": "failures", "action": "drop", "letter_id": ids}
        sure = await client.post("/dead-letters/sure", data=data, headers=OURS)
        assert "Drop 2 dead letters?" in Elements(sure.text).text
        assert len(shown((await client.get("/dead-letters")).text)) == 4
        after = await change(client, sure.text, action="drop", letter_id=ids)
    assert "2 dead letters dropped." in after.text
    assert shown(after) == ["op-000001", "op-000000"]


async def test_all_that_match_are_changed(config: QueueConfig, queue: QueueManager, raw: redis.Redis) -> None:
    """And no other; a page asks first and names the filter."""
    bury(raw, config, *(dead_letter(n, error_type="OSError" if n % 2 else "KeyError") for n in range(60)))
    async with browsing(create_app(config, writable=True)) as client:
        page = (await client.get("/dead-letters", params={"error": "oserror"})).text
        address = next(a["href"] or "" for a in Elements(page).all("a") if "action=retry" in (a["href"] or ""))
        sure = Elements((await client.get(address)).text)
        assert "Retry all that match?" in sure.text
        assert "Error oserror" in sure.text
        after = await change(client, page, action="retry", scope="matching", error="oserror")
        assert "30 dead letters retried." in after.text
        after = await change(client, page, action="drop", scope="matching")
        assert "30 dead letters dropped." in after.text
    assert queue.get_queue_status()[f"{config.keys.prefix}normal:invoices"] == 30


async def test_without_a_selection_nothing_happens(config: QueueConfig, raw: redis.Redis) -> None:
    bury(raw, config, dead_letter(1))
    async with browsing(create_app(config, writable=True)) as client:
        page = (await client.get("/dead-letters")).text
        after = await change(client, page, action="drop")
        assert "No dead letter was selected." in after.text
        assert (await posted(client, data={"action": "explode", "letter_id": "x", "scope": []})).status_code == 404
    assert shown(after) == ["op-000001"]


async def test_dead_letters_with_absurd_values_are_shown(config: QueueConfig, raw: redis.Redis) -> None:
    """Too deep, too many digits, no time that there is, members of the wrong type."""
    absurd = (
        b'{"failed_at": 1e300, "attempts": -1}',
        b'{"failed_at": -1e300, "queue": 7, "processor": [], "entity": ' + b"9" * 10_000 + b"}",
        b'{"attempts": ' + b"9" * 10_000 + b', "operation_id": {}}',
        b'{"entity": ' + b"[" * 950 + b"]" * 950 + b"}",
        b'{"entity": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"failed_at": true, "failure_reason": {"a": 1}, "error_type": 1.5}',
        b"\xff\xfe\x00",
    )
    bury(raw, config, *absurd)
    async with browsing(create_app(config)) as client:
        listed = await client.get("/dead-letters")
        assert listed.status_code == 200
        addresses = links_to_dead_letters(listed.text)
        assert len(addresses) == len(absurd)
        for address, letter_bytes in zip(addresses, reversed(absurd), strict=True):
            assert (await client.get(address)).status_code == 200
            assert (await client.get(f"{address}/text")).content == letter_bytes


async def test_a_dead_letter_and_an_operation_tell_where_they_failed(config: QueueConfig, raw: redis.Redis) -> None:
    where = 'Traceback (most recent call last):\n  File "shop.py", line 3, in pay\n    redis://u:canary@h\n'
    bury(raw, config, dead_letter(1, traceback=where + "<script>"))
    raw.set(config.keys.operation("op-1"), b"failed\t\t1\tnormal:p\t\t1\t0\t0\tw\n" + json.dumps(
        {"error": "boom", "error_type": "E", "traceback": where}).encode())  # fmt: skip
    async with browsing(create_app(config)) as client:
        page = (await client.get("/dead-letters")).text
        one = links_to_dead_letters(page)[0]
        for address in (one, "/operations?id=op-1"):
            text = (await client.get(address)).text
            assert "line 3, in pay" in text
            assert "<script>" not in text.replace("<script src", "")
            assert_tame(text)
            assert "redis://u:***@h" in text.replace("&amp;", "&")


async def test_a_dashboard_without_the_keys_puts_back_no_signed_dead_letter(
    config: QueueConfig, raw: redis.Redis
) -> None:
    """Not by a button, which it does not offer, nor by a form that asks for all; the page says what is missing."""
    bury(raw, config, dead_letter(1, signature=f"k:{'0' * 64}"))
    async with browsing(create_app(config, writable=True)) as client:
        page = (await client.get("/dead-letters")).text
        one = links_to_dead_letters(page)[0]
        assert 'value="retry"' not in (await client.get(one)).text
        answer = await posted(client, data={"action": "retry"})
    assert answer.status_code == 400
    assert "signed and stay" in answer.text
    assert raw.llen(config.failures_queue) == 1
