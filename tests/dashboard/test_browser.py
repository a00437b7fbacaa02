"""The dashboard in a real browser: live figures, keyboard, retry, hostile texts, a phone, dark mode, no motion."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager
from queue_system.dashboard import create_app
from tests.dashboard.hostile import CORPUS
from tests.dashboard.support import TOKEN, bury, dead_letter, served

PHONE = {"viewport": {"width": 375, "height": 740}, "is_mobile": True, "has_touch": True}
PAGES = ("/", "/queues", "/operations", "/workers", "/dead-letters")

OpenTab = Callable[..., Any]


@pytest.fixture
def address(config: QueueConfig) -> Iterator[str]:
    """Where a writable dashboard is served."""
    with served(create_app(config, writable=True)) as at:
        yield at


def wait_for_text(page: Any, selector: str, text: str) -> None:
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.textContent.includes(text)",
        arg=[selector, text],
    )


def visit(page: Any, url: str) -> None:
    """Go there, and wait for live figures."""
    page.goto(url)
    wait_for_text(page, '[data-live="state"]', "live")


def focused(page: Any) -> str:
    """What has the focus, in words."""
    return str(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))


def tab_to(page: Any, name: str) -> None:
    """Press Tab until what is called `name` has the focus; it must be visible that it has."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page) == name:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{name} does not show its focus"
            return
    raise AssertionError(f"{name!r} cannot be reached by keyboard")


def test_figures_change_while_one_looks(address: str, tab: OpenTab, queue: QueueManager) -> None:
    """Without a reload, and without taking the focus or the place of the text away."""
    page = tab()
    page.goto(address)
    wait_for_text(page, ".tile .figure", "0")
    page.evaluate("window.here = true")
    page.focus(".strip a")
    queue.enqueue_batch([{}] * 4321, "shop.send", queue_name="invoices")
    wait_for_text(page, ".tile .figure", "4,321")
    wait_for_text(page, "tbody", "invoices")
    page.wait_for_function("document.querySelector('.spark polyline').getAttribute('points')")
    assert page.evaluate("window.here")
    assert page.evaluate("document.activeElement.matches('.strip a')")


def test_an_operation_is_followed(address: str, tab: OpenTab, queue: QueueManager, config: QueueConfig) -> None:
    queue.enqueue({}, "shop.send", operation_id="op-1")
    page = tab()
    page.goto(f"{address}/operations")
    page.fill("#id", "op-1")
    page.keyboard.press("Enter")
    wait_for_text(page, "#record", "queued")
    assert page.url == f"{address}/operations?id=op-1"
    queue.purge_queue("send")
    queue.enqueue({}, "shop.send", operation_id="op-1", delay=100)
    wait_for_text(page, "#record", "delayed")


def test_the_stream_comes_back(config: QueueConfig, address: str, tab: OpenTab, queue: QueueManager) -> None:
    """Cut off, the page says so; it goes on by itself."""
    page = tab()
    visit(page, address)
    page.context.set_offline(True)
    page.evaluate("stream.dispatchEvent(new Event('error'))")
    wait_for_text(page, '[data-live="state"]', "disconnected")
    page.context.set_offline(False)
    queue.enqueue({}, "shop.send", queue_name="mails")
    wait_for_text(page, "tbody", "mails")
    wait_for_text(page, '[data-live="state"]', "live")
    page.troubles.clear()  # that it was offline stands in the console


def test_the_keyboard_is_enough(address: str, tab: OpenTab, config: QueueConfig, raw: redis.Redis) -> None:
    """From the skip link through the filter to a retried dead letter, without a mouse."""
    bury(raw, config, dead_letter(1), dead_letter(2, queue="normal:mails"))
    page = tab()
    page.goto(address)
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.reload()
    tab_to(page, "Dead letters2")
    page.keyboard.press("Enter")
    page.wait_for_url("**/dead-letters")
    page.focus("#queue")
    page.keyboard.type("mails")
    page.keyboard.press("Enter")
    page.wait_for_url("**queue=mails")
    page.wait_for_selector("tbody tr:only-child")
    assert page.evaluate("document.activeElement.id") == "queue"
    tab_to(page, "shop.mails.send_invoice")
    page.keyboard.press("Enter")
    page.wait_for_url("**/dead-letters/failures/**")
    tab_to(page, "Retry")
    page.keyboard.press("Enter")
    wait_for_text(page, "p[role=status]", "1 dead letter retried.")
    assert raw.llen(config.keys.queue("normal", "mails")) == 1


def test_dead_letters_are_selected_and_dropped(
    address: str, tab: OpenTab, config: QueueConfig, raw: redis.Redis
) -> None:
    """After a question; what was cancelled stays."""
    bury(raw, config, *map(dead_letter, range(30)))
    page = tab()
    page.goto(f"{address}/dead-letters")
    page.click("#older")
    page.wait_for_selector("text=op-000004")
    page.check("text=all on this page")
    page.click("text=Drop selected")
    wait_for_text(page, "h1", "Drop 5 dead letters?")
    page.click("text=Cancel")
    page.wait_for_selector("text=op-000029")
    assert raw.llen(config.keys.failures) == 30
    page.check("tbody tr:nth-child(3) input")
    page.click("text=Drop selected")
    wait_for_text(page, "h1", "Drop 1 dead letter?")
    page.click("main button")
    wait_for_text(page, "p[role=status]", "1 dead letter dropped.")
    assert raw.llen(config.keys.failures) == 29
    page.click("text=Retry all that match")
    page.click("main button")
    wait_for_text(page, "p[role=status]", "29 dead letters retried.")


def test_pages_of_dead_letters_are_in_the_history(
    address: str, tab: OpenTab, config: QueueConfig, raw: redis.Redis
) -> None:
    bury(raw, config, *map(dead_letter, range(30)))
    page = tab()
    page.goto(f"{address}/dead-letters")
    page.evaluate("window.here = true")
    page.click("#older")
    page.wait_for_selector("text=op-000004")
    page.go_back()
    page.wait_for_selector("text=op-000029")
    page.select_option("#age", "1h")
    page.wait_for_selector("text=No dead letter matches.")
    assert page.evaluate("window.here"), "the page was loaded anew"


def test_hostile_texts_do_nothing(address: str, tab: OpenTab, config: QueueConfig, raw: redis.Redis) -> None:
    """No dialog, no script, no request elsewhere, no violation of the policy; what hides is shown."""
    for name, text in CORPUS.items():
        bury(raw, config, {**dict.fromkeys(dead_letter(0), text), "entity": {text: text, "name": name}})
        bury(raw, config, text.encode(errors="surrogatepass") or b" ", source="system_errors")
        raw.hset(config.keys.workers, b"w@" + text.encode(errors="surrogatepass"), "1:1000")
    bury(raw, config, dead_letter(1, entity=CORPUS))
    page = tab()
    elsewhere: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(address) else elsewhere.append(request.url))
    for path in ("/dead-letters", "/dead-letters?source=system_errors", "/workers", "/"):
        visit(page, address + path)
        while older := page.query_selector("#older"):
            here = page.url
            older.click()
            page.wait_for_url(lambda url, here=here: url != here)
            page.wait_for_selector("main:not([aria-busy])")
    page.goto(f"{address}/dead-letters")
    for link in page.eval_on_selector_all("tbody a", "links => links.map(link => link.href)")[:3]:
        page.goto(link)
    assert elsewhere == []


def test_hostile_texts_stay_texts_when_they_come_live(
    address: str, tab: OpenTab, config: QueueConfig, raw: redis.Redis
) -> None:
    page = tab()
    page.goto(f"{address}/workers")
    wait_for_text(page, "main", "No worker is registered.")
    for text in CORPUS.values():
        raw.hset(config.keys.workers, b"w@" + text.encode(errors="surrogatepass"), "1:1000")
    wait_for_text(page, "main", "<script>alert(1)</script>")


def test_a_browser_signs_in_and_out(config: QueueConfig, tab: OpenTab) -> None:
    """Its session works for pages and for the stream, and no script can read it."""
    with served(create_app(config, token=TOKEN)) as address:
        page = tab()
        page.goto(address)
        assert page.url == f"{address}/login"
        page.wait_for_selector("#token:focus")
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}/")
        wait_for_text(page, '[data-live="state"]', "live")
        assert page.evaluate("document.cookie") == ""
        page.click("text=Sign out")
        page.wait_for_url(f"{address}/login")
        page.goto(f"{address}/queues")
        assert page.url == f"{address}/login"


def test_a_browser_on_another_machine_signs_in_and_out_over_plain_http(config: QueueConfig, tab: OpenTab) -> None:
    """There it sends no Sec-Fetch-Site: its forms pass by the origin that it names."""
    with served(create_app(config, token=TOKEN, writable=True)) as address:
        ours = address.replace("127.0.0.1", "queues.example.org")
        page = tab()
        page.goto(f"{ours}/login")
        assert not page.evaluate("isSecureContext")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{ours}/")
        page.click("text=Sign out")
        page.wait_for_url(f"{ours}/login")
    ignored = (
        "console: The Cross-Origin-Opener-Policy header has been ignored, because the URL's origin was untrustworthy"
    )
    assert [trouble for trouble in page.troubles if not trouble.startswith(ignored)] == []
    page.troubles.clear()


def test_a_phone_needs_no_sideways_scrolling(address: str, tab: OpenTab, config: QueueConfig, raw: redis.Redis) -> None:
    """Neither with long names, nor with texts that have no place to break."""
    long = "x" * 128
    raw.sadd(config.keys.registry, config.keys.queue("high", long))
    raw.lpush(config.keys.queue("high", long), json.dumps({"processor": "p"}))
    raw.hset(config.keys.workers, f"0123456789abcdef@{'h' * 60}:12345", "1:15000")
    bury(
        raw, config, dead_letter(1, queue=f"normal:{long}", processor=long, operation_id=long, failure_reason=long * 20)
    )
    page = tab(**PHONE)
    for path in PAGES:
        visit(page, address + path)
        assert page.evaluate("document.documentElement.scrollWidth") == 375, path
    page.goto(f"{address}/dead-letters")
    page.tap("tbody a")
    page.wait_for_url("**/failures/**")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    for button in page.query_selector_all("main button"):
        assert button.bounding_box()["height"] >= 44


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_in_dark(
    address: str, tab: OpenTab, config: QueueConfig, raw: redis.Redis, scheme: str
) -> None:
    """Each contrast is at least 4.5 to 1."""
    raw.sadd(config.keys.registry, *(config.keys.queue(priority, "mails") for priority in ("high", "normal", "low")))
    raw.lpush(config.keys.queue("high", "mails"), "{}")
    raw.hset(config.keys.workers, "0123456789abcdef@web-1:12345", "1:15000")
    bury(raw, config, dead_letter(1))
    page = tab(color_scheme=scheme)
    for path in PAGES:
        visit(page, address + path)
        assert page.evaluate(_FAINT) == [], path
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 100) == (scheme == "dark")


_FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] > 250) return color;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) faint.push(`${element.tagName} ${element.textContent.trim()}: ${contrast}`);
  }
  return faint;
}"""


def test_nothing_moves_where_motion_is_not_wanted(address: str, tab: OpenTab) -> None:
    running = "document.getAnimations().length"
    page = tab(reduced_motion="reduce")
    visit(page, address)
    assert page.evaluate(running) == 0
    page = tab(reduced_motion="no-preference")
    visit(page, address)
    assert page.evaluate(running) > 0


def test_pages_work_without_scripts(address: str, tab: OpenTab, config: QueueConfig, raw: redis.Redis) -> None:
    bury(raw, config, *map(dead_letter, range(30)))
    page = tab(java_script_enabled=False)
    page.goto(f"{address}/dead-letters")
    page.click("#older")
    page.click("tbody a")
    page.click("main >> text=Retry")
    assert "1 dead letter retried." in page.text_content("main")
    page.troubles = []
    page.evaluate = lambda _: []  # without scripts there is nothing to ask
