"""What is decided where the specification is silent: scripts, forks, deaths and servers of other processes."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.contract.support import counted, python, run
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

VICTIM = """\
import asyncio, os, signal
from queue_system import QueueConfig, QueueWorker

async def die(entity):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    config = QueueConfig(redis_url=os.environ["URL"], queue_prefix=os.environ["PREFIX"], lease_seconds=0.5)
    config.register_callback(die, name="work")
    await QueueWorker(config).start()
    await asyncio.Event().wait()

asyncio.run(main())
"""

EMBEDDED = """\
from queue_system import QueueConfig, QueueManager

queue = QueueManager(config=QueueConfig())
queue.enqueue({}, "app.handle")
print(queue.get_queue_status()["queue:normal:handle"])
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


async def test_a_workers_death_loses_nothing_and_is_no_attempt(
    server: OwnServer, prefix: str, queue: QueueManager, tmp_path: Path, inbox: Inbox
) -> None:
    """The operation may run once only, and it runs to its end on another worker after the first was killed."""
    (tmp_path / "script.py").write_text(VICTIM)
    with python("script.py", cwd=tmp_path, URL=server.url, PREFIX=prefix) as process:
        queue.enqueue({"n": 1}, "work", retry_config=QueueRetryConfig(max_attempts=1))
        process.wait(timeout=20)
    assert process.returncode == -signal.SIGKILL

    config = QueueConfig(redis_url=server.url, queue_prefix=prefix, lease_seconds=0.5)
    config.register_callback(inbox.put, name="work")
    async with running(QueueWorker(config)):
        assert await inbox.next() == {"n": 1}
    assert (counted(config, "processed"), counted(config, "failed")) == (1, 0)


def test_without_any_url_a_server_of_the_folder_is_embedded_and_its_data_survives(tmp_path: Path) -> None:
    assert run_script(EMBEDDED, tmp_path) == "1\n"
    assert (tmp_path / ".queue-system").is_dir()
    assert run_script(EMBEDDED, tmp_path) == "2\n"
