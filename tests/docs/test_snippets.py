"""Every snippet of the README and the documentation runs; what is no Python is at least parsed."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import PAGES, ROOT, Block, read_blocks, runners_of
from tests.docs.run_page import compile_block
from tests.kit.logs import without_told_tracebacks
from tests.kit.servers import OwnServer

LANGUAGES = {
    "", "bash", "console", "dockerfile", "html", "http", "ini", "javascript", "json", "lua", "nginx", "promql",
    "python", "text", "toml", "yaml",
}  # fmt: skip
RUN = [page for page in PAGES if any(b.language == "python" and not b.only_compiled for b in read_blocks(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def docs_server() -> Iterator[OwnServer]:
    """A server for the pages alone, since they use the usual prefix."""
    with OwnServer() as server:
        yield server


@pytest.mark.parametrize("document", RUN, ids=name_of)
def test_a_page_runs_and_prints_what_it_says(document: Path, docs_server: OwnServer, tmp_path: Path) -> None:
    """The blocks run one after the other in one process, and each prints what stands behind it."""
    with docs_server.client() as client:
        client.flushall()
    unset = ("REDIS_URL", "QUEUE_SYSTEM_DATA_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"QUEUE_SYSTEM_REDIS_URL": docs_server.url, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.run_page", document],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 0
    assert "Traceback" not in without_told_tracebacks(done.stderr), done.stderr


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_every_block_is_well_formed(document: Path) -> None:
    """Each block is of a known language and has its syntax."""
    for block in read_blocks(document):
        assert block.language in LANGUAGES, f"{document}:{block.line}"
        try:
            check_syntax(block, document)
        except (ValueError, SyntaxError, yaml.YAMLError, configparser.Error) as error:
            pytest.fail(f"{document}:{block.line}: {error}")


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_the_tests_that_a_page_names_read_it(document: Path) -> None:
    """Where a page leaves its blocks to another test, that test mentions the page."""
    for runner in runners_of(document):
        assert document.name in (ROOT / runner).read_text(encoding="utf-8")


def check_syntax(block: Block, page: Path) -> None:
    """Raise what the language's own parser raises."""
    match block.language:
        case "python":
            compile_block(block, page)
        case "yaml":
            list(yaml.safe_load_all(block.text))
        case "json":
            json.loads(block.text)
        case "toml":
            tomllib.loads(block.text)
        case "ini":
            configparser.ConfigParser(strict=False, allow_no_value=True, interpolation=None).read_string(block.text)
        case "bash":
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
            assert not done.stderr, f"{page}:{block.line}: {done.stderr}"
