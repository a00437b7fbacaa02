"""Takes the pictures of docs/images from a dashboard over a fleet at work: python -m tests.dashboard.screenshots.

Never runs as a test. It takes a minute, most of it to fill the sparklines, and needs Chromium.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import sync_playwright

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.dashboard import create_app
from tests.dashboard.support import served
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer
from tests.kit.source import ROOT

FILL_S = 125
WORKERS = 3
ONCE = QueueRetryConfig(max_attempts=1)
TWICE = QueueRetryConfig(max_attempts=2, delays=[2.0])
RUSH_S, CALM_S = 9, 14
LOAD = (
    ("send_invoice", "high", 14),
    ("resize_image", "normal", 45),
    ("resize_image", "low", 20),
    ("export_orders", "low", 40),
)
PICTURES = (
    ("desktop", "/", {"viewport": {"width": 1280, "height": 720}}),
    ("letters", "/dead-letters", {"viewport": {"width": 1280, "height": 720}}),
    ("dark", "/", {"viewport": {"width": 1280, "height": 720}, "color_scheme": "dark"}),
    ("phone", "/", {"viewport": {"width": 375, "height": 812}, "is_mobile": True}),
)


async def send_invoice(invoice: Any) -> dict[str, Any]:
    """Send one; now and then the mail server is away."""
    await asyncio.sleep(random.uniform(0.005, 0.03))
    if random.random() < 0.02:
        raise ConnectionError(f"mail.example.org closed the connection before {invoice['to']} was accepted")
    return {"sent_to": invoice["to"]}


async def resize_image(image: Any) -> dict[str, Any]:
    """Resize one; some are broken."""
    await asyncio.sleep(random.uniform(0.01, 0.05))
    if random.random() < 0.004:
        raise ValueError(f"{image['name']} is no image: unexpected end of data")
    return {"width": 320}


async def export_orders(day: Any) -> None:
    """Export a day."""
    await asyncio.sleep(random.uniform(0.02, 0.08))


PROCESSORS = {processor.__name__: processor for processor in (send_invoice, resize_image, export_orders)}
for name, module in (
    ("send_invoice", "shop.mails"),
    ("resize_image", "shop.images"),
    ("export_orders", "shop.exports"),
):
    PROCESSORS[name].__module__ = module  # as in the application that the pictures tell of


async def work(config: QueueConfig, end: threading.Event) -> None:
    """Run the workers, and feed them in waves."""
    workers = [QueueWorker(config, max_workers=4) for _ in range(WORKERS)]
    for worker in workers:
        await worker.start()
    queue, n = QueueManager(config), 0
    while not end.is_set():
        for name, priority, most in LOAD:
            entities = [{"to": f"customer-{n + i}@example.org", "name": f"photo-{n + i}.jpg"} for i in range(most)]
            some = entities[: random.randint(most // 4, most)]
            n += len(some)
            retry = TWICE if name == "resize_image" else ONCE
            await queue.aenqueue_batch(some, PROCESSORS[name], priority=priority, retry_config=retry)
        await queue.aenqueue({"n": n}, "shop.reports.monthly", queue_name="reports", delay=3600)
        in_a_rush = time.monotonic() % (RUSH_S + CALM_S) < RUSH_S
        await asyncio.sleep(random.uniform(0.15, 0.25) if in_a_rush else random.uniform(0.5, 0.9))
    for worker in workers:
        await worker.stop()


@contextlib.contextmanager
def fleet(config: QueueConfig) -> Iterator[None]:
    """Let the fleet work in a thread."""
    end = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(work(config, end)))
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def main() -> None:
    """Take all pictures."""
    folder = ROOT / "docs/images"
    folder.mkdir(exist_ok=True)
    with OwnServer(tcp=True, appendfsync="everysec") as server, sync_playwright() as playwright:
        config = QueueConfig(redis_url=server.url, logger=LineLogger())
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with fleet(config), served(create_app(config, writable=True)) as address:
            page = browser.new_page()
            page.goto(address)  # somebody must look for the sparklines to fill
            page.wait_for_timeout(FILL_S * 1000)
            for name, path, settings in PICTURES:
                page = browser.new_page(**settings)
                page.goto(address + path)
                page.wait_for_timeout(1500)
                page.screenshot(path=folder / f"dashboard-{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
