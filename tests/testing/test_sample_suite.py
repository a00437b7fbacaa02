"""The test suite that docs/testing.md shows runs as a user's would: in a folder and a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = Path(__file__).parents[2] / "docs/testing.md"
UNSET: Final = ("QUEUE_SYSTEM_REDIS_URL", "REDIS_URL", "QUEUE_SYSTEM_DATA_DIR", "PYTEST_ADDOPTS")
MORE_TESTS: Final = """
import pytest
import redis

from queue_system.testing import captured_operations
from queue_system.testing.proxy import Proxy


def test_server(queue_server_url):
    with redis.Redis.from_url(queue_server_url) as client:
        print("server", client.info("server")["process_id"], client.config_get("dir")["dir"])


@pytest.mark.parametrize("turn", range(3))
def test_apart(turn, queue_config, queue_manager, queue_server_url):
    with redis.Redis.from_url(queue_server_url) as client:
        assert client.dbsize() == 0
    queue_manager.enqueue({"turn": turn}, "mails.send_mail")
    assert [operation.entity for operation in captured_operations(queue_config)] == [{"turn": turn}]


class TestYours:
    @pytest.fixture
    def queue_server_url(self, queue_server_url):
        with Proxy(queue_server_url) as proxy:
            yield proxy.url.replace("redis://", "valkey://")

    def test_scheme(self, queue_config, queue_manager, queue_server_url):
        assert queue_server_url.startswith("valkey://")
        queue_manager.enqueue({}, "mails.send_mail")
"""


def shown_files() -> Iterator[tuple[str, str]]:
    """The files that the page shows: their names and their text."""
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        if named := re.match(r"# (\w+\.py)", block):
            yield named[1], block


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest prints of the page's suite and of four more tests, warnings being errors."""
    folder = tmp_path_factory.mktemp("suite")
    for name, block in [*shown_files(), ("test_more.py", MORE_TESTS)]:
        with (folder / name).open("a", encoding="utf-8") as file:  # what the page adds to a file later is appended
            file.write(block)
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed here would cost seconds
    options = ("-vs", "-p", "pytest_asyncio.plugin", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_suite_of_the_page_passes(output: str) -> None:
    """All tests that the page shows pass."""
    names = [
        name for _, block in shown_files() for name in re.findall(r"^(?:async )?def (test_\w+)", block, re.MULTILINE)
    ]
    assert len(names) == 6
    assert not [name for name in names if not re.search(rf"::{name} PASSED", output)], output


def test_each_test_has_its_own_prefix_and_leaves_no_key(output: str) -> None:
    """What a test enqueued is not there for the next one, nor on the server."""
    assert len(re.findall(r"::test_apart\[\d\] PASSED", output)) == 3, output


def test_a_server_of_yours_may_have_a_scheme_that_only_we_know(output: str) -> None:
    """What lies under the test's prefix is deleted there, too."""
    assert "::test_scheme PASSED" in output, output
    assert "::test_scheme ERROR" not in output, output


def test_the_private_server_is_gone_after_the_run(output: str) -> None:
    """Neither a server nor its folder outlives the test run that it belonged to."""
    found = re.search(r"server (\d+) (\S+)", output)
    assert found, output
    assert not Path(found[2]).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[1]), 0)


def test_the_plugin_loads_only_where_it_is_named() -> None:
    """No entry point brings it into runs that have nothing to do with the queue."""
    assert not [point for point in entry_points(group="pytest11") if "queue_system" in point.value]
