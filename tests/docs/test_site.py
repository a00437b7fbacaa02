"""The documentation site is built as `make docs` builds it, and a browser would load nothing from elsewhere for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from queue_system import QueueManager, errors
from tests.docs.blocks import ROOT

LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src"}


class Loads(HTMLParser):
    """Collects the addresses from which a page loads something."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in LOADED:
            self.addresses.append(values.get(LOADED[tag]) or "")
        elif tag == "link" and values.get("rel") not in {"canonical", "next", "prev"}:
            self.addresses.append(values.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_is_built_without_a_warning(site: Path) -> None:
    """Every page is in the menu, and every link and anchor leads somewhere; otherwise the build fails."""
    assert (site / "index.html").is_file()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No page and no style sheet names another host for a script, a style, a font or a picture.

    None has a diagram, for which the theme's own script would load one.
    """
    foreign = []
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'class="mermaid"' not in text
        loads = Loads()
        loads.feed(text)
        foreign += [f"{page.name}: {address}" for address in loads.addresses if "//" in address]
    for style in site.rglob("*.css"):
        foreign += re.findall(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//[^)]*", style.read_text(encoding="utf-8"))
    assert not foreign


def test_the_reference_shows_what_a_caller_sees(site: Path) -> None:
    """Each public method of the manager has its entry, async twins included; none tells of the steps behind it."""
    page = (site / "reference/manager.html").read_text(encoding="utf-8")
    public = [name for name in vars(QueueManager) if not name.startswith("_")]
    assert {"enqueue", "aenqueue"} <= set(public)
    assert not [name for name in public if f'id="queue_system.QueueManager.{name}"' not in page]
    assert "Flow" not in page


def test_the_reference_lists_every_error(site: Path) -> None:
    """Each class of the error tree has its entry."""
    page = (site / "reference/errors.html").read_text(encoding="utf-8")
    names = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert not [name for name in names if f'id="queue_system.errors.{name}"' not in page]
