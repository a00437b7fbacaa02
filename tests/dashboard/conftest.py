"""Fixtures of the dashboard's tests: a bare client, and a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from playwright.sync_api import sync_playwright

from tests.kit.waiting import DEADLINE_S

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


@pytest.fixture
def raw(client: redis.Redis) -> redis.Redis:
    """A bare client of the shared server; the tests' `client` speaks HTTP."""
    return client


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium. Without one the test is skipped.

    Not of the session: Playwright keeps an event loop running in this thread, beside which no async test could run.
    """
    path = os.environ.get("QUEUE_SYSTEM_CHROMIUM") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP *.example.org 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens tabs, each in a profile of its own. A dialog, an error or a violation of the policy fails the test."""
    opened = []

    def open_tab(**settings: Any) -> Any:
        context = chromium.new_context(**settings)
        context.add_init_script(_VIOLATIONS)
        page = context.new_page()
        page.set_default_timeout(DEADLINE_S * 1000)
        troubles: list[str] = []
        page.troubles = troubles
        page.on("dialog", lambda dialog: dismissed(dialog, troubles))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("console", lambda line: troubles.append(f"console: {line.text}") if line.type == "error" else None)
        opened.append(page)
        return page

    yield open_tab
    for page in opened:
        page.troubles += page.evaluate("window.violations")
        page.context.close()
    assert [trouble for page in opened for trouble in page.troubles] == []


def dismissed(dialog: Any, troubles: list[str]) -> None:
    """Note a dialog, and close it so that the page goes on."""
    troubles.append(f"dialog: {dialog.message}")
    dialog.dismiss()
