"""What pages and messages tell to install is this distribution, not the stranger of a similar name."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from tests.docs.blocks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# `queue-system` and nothing before it that would make it a longer name; `pip uninstall` may name the stranger.
STRANGER = re.compile(r"\bpip install\b[^`\n]*(?<![\w/.-])queue-system\b(?![./])")


def texts() -> list[Path]:
    """Whatever somebody may read: pages, deploy files, messages in the source."""
    listed = subprocess.run(
        ["git", "ls-files", "README.md", "docs", "deploy", "examples", "src", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.suffix in {".md", ".py", ".yml", ".yaml", ".service", ".html", ".txt"}]


def test_the_distribution_the_import_and_the_command_have_their_names() -> None:
    assert PROJECT["name"] == "redis-queue-system"
    assert list(PROJECT["scripts"]) == ["queue-system"]


def test_no_text_tells_to_install_the_stranger() -> None:
    """Only the page that warns of it names it behind `pip install`, in bold."""
    told = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts()
        for match in STRANGER.finditer(path.read_text(encoding="utf-8"))
    ]
    assert all(line.startswith(("README.md", "docs/install.md")) for line in told), told
    assert len(told) == 2, told


def test_every_extra_that_a_text_names_exists() -> None:
    extras = set(PROJECT["optional-dependencies"])
    for path in texts():
        for named in re.findall(r"redis-queue-system\[([\w,]+)\]", path.read_text(encoding="utf-8")):
            assert named == "NAME" or set(named.split(",")) <= extras, f"{path.name}: {named}"


def test_the_page_on_installing_lists_every_extra() -> None:
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) - {"queue_system"}
    assert listed >= set(PROJECT["optional-dependencies"]) - {"demo"}
