"""What is decided where the specification is silent: scripts and forks of other processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import redis

from queue_system import QueueConfig, QueueWorker
from tests.contract.support import run
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.servers import OwnServer
from tests.kit.waiting import DEADLINE_S
from tests.kit.workers import running

PRODUCER = """\
import os
from queue_system import QueueConfig, QueueManager

queue = QueueManager(config=QueueConfig(redis_url=os.environ["URL"], queue_prefix=os.environ["PREFIX"]))

def work(entity):
    return {"by": __name__}

if __name__ == "__main__":
    queue.enqueue({"n": 1}, work, on_success="app.note")
"""

FORKER = """\
import os
from queue_system import QueueConfig, QueueManager

config = QueueConfig(redis_url=os.environ["URL"], queue_prefix=os.environ["PREFIX"])
queue = QueueManager(config=config)
queue.enqueue({"by": "parent", "n": -1}, "app.handle")
children = []
for child in range(3):
    pid = os.fork()
    if pid == 0:
        for n in range(20):
            queue.enqueue({"by": child, "n": n}, "app.handle")
            assert queue.get_queue_status()["total_items"] > 0
        os._exit(0)
    children.append(pid)
for n in range(20):
    queue.enqueue({"by": "parent", "n": n}, "app.handle")
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
"""


def run_script(source: str, folder: Path, *, as_module: bool = False, **variables: str) -> str:
    """Run a script in its folder and return what it printed."""
    (folder / "script.py").write_text(source)
    return run(*(["-m", "script"] if as_module else ["script.py"]), cwd=folder, **variables)[0]


@pytest.mark.parametrize("as_module", [False, True])
async def test_a_function_of_a_script_is_stored_under_the_scripts_importable_name(
    server: OwnServer,
    config: QueueConfig,
    raw: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    as_module: bool,
) -> None:
    run_script(PRODUCER, tmp_path, as_module=as_module, URL=server.url, PREFIX=config.queue_prefix)
    (item,) = documents(raw, config.get_queue_key("work"))
    assert (item["processor_module"], item["processor"]) == ("script", "work")

    monkeypatch.syspath_prepend(tmp_path)
    config.registry.application.add_folder(tmp_path)
    monkeypatch.setenv("URL", server.url)
    monkeypatch.setenv("PREFIX", config.queue_prefix)
    inbox = Inbox(DEADLINE_S)
    config.register_callback(inbox.put, name="note", module="app")
    try:
        async with running(QueueWorker(config)):
            assert (await inbox.next())["result"] == {"by": "script"}
    finally:
        sys.modules.pop("script", None)


def test_configuration_and_manager_are_fork_safe(
    server: OwnServer, config: QueueConfig, raw: redis.Redis, tmp_path: Path
) -> None:
    printed = run_script(FORKER, tmp_path, URL=server.url, PREFIX=config.queue_prefix)
    assert json.loads(printed) == [0, 0, 0]
    items = documents(raw, config.get_queue_key("handle"))
    assert len({item["operation_id"] for item in items}) == 81
    assert len({(item["entity"]["by"], item["entity"]["n"]) for item in items}) == 81
