"""Processors that a worker must import first: in a thread, within the attempt's limit, and as a part of the attempt."""

from __future__ import annotations

import asyncio
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.waiting import eventually
from tests.kit.workers import first_letter, running

Write = Callable[[str], str]


class Dispatcher:
    """What a module under test waits for, and whether it has begun to be imported."""

    reached = threading.Event()
    opened = threading.Event()
    imports = 0


@pytest.fixture
def write_module(tmp_path: Path, config: QueueConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module of the application and returns its name; what waits in one goes on at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    config.registry.application.add_folder(tmp_path)
    Dispatcher.reached.clear()
    Dispatcher.opened.clear()
    Dispatcher.imports = 0
    names: list[str] = []

    def write(text: str) -> str:
        name = f"application_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return name

    yield write
    Dispatcher.opened.set()
    for name in names:
        sys.modules.pop(name, None)


BLOCKING = f"""
from {__name__} import Dispatcher
def work(entity): return "worked"
def other(entity): return "other"
Dispatcher.imports += 1
Dispatcher.reached.set()
Dispatcher.opened.wait(60)
"""


async def test_other_operations_go_on_while_a_module_is_imported(
    queue: QueueManager, config: QueueConfig, inbox: Inbox, write_module: Write
) -> None:
    module = write_module(BLOCKING)
    slow = queue.enqueue({}, f"{module}.work")["operation_id"]
    async with running(QueueWorker(config, max_workers=2)):
        assert await asyncio.to_thread(Dispatcher.reached.wait, 10)
        queue.enqueue_batch([{"n": n} for n in range(20)], inbox.put)
        assert len(await inbox.take(20)) == 20
        Dispatcher.opened.set()
        assert (await queue.await_for(slow, timeout=10)).result == "worked"


async def test_an_import_ends_at_the_attempt_s_limit_and_is_a_failed_attempt(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, write_module: Write
) -> None:
    module = write_module(BLOCKING)
    retry = QueueRetryConfig.fixed(0.01, max_attempts=2)
    queue.enqueue({}, f"{module}.work", timeout=0.2, retry_config=retry)
    letter = await first_letter(config, client)
    assert (letter["error_type"], letter["attempts"]) == ("TimeoutError", 2)
    assert f"while module '{module}' was imported" in letter["failure_reason"]
    assert Dispatcher.imports == 1


async def test_many_operations_that_wait_for_one_import_hold_one_thread(
    queue: QueueManager, config: QueueConfig, write_module: Write
) -> None:
    module = write_module(BLOCKING)
    before = threading.active_count()
    for n in range(100):
        once = QueueRetryConfig(max_attempts=1)
        queue.enqueue({}, f"{module}.work", queue_name=f"q{n}", timeout=0.05, retry_config=once)
    async with running(QueueWorker(config, max_workers=50)):
        await eventually(lambda: config.get_metrics()["failed"] == 100, "all have reached their limit", 30.0)
        assert threading.active_count() < before + 10


async def test_a_worker_stops_while_a_module_is_imported(
    queue: QueueManager, config: QueueConfig, write_module: Write
) -> None:
    """The operation goes back, and has spent no attempt."""
    queue.enqueue({}, f"{write_module(BLOCKING)}.work")
    worker = QueueWorker(config)
    await worker.start()
    assert await asyncio.to_thread(Dispatcher.reached.wait, 10)
    async with asyncio.timeout(10):
        await worker.stop(grace=0.1)
    assert queue.get_queue_status()[config.get_queue_key("work")] == 1


async def test_a_module_may_run_an_event_loop_while_it_is_imported(
    queue: QueueManager, config: QueueConfig, write_module: Write
) -> None:
    text = "import asyncio\nasync def find(): return 7\nFOUND = asyncio.run(find())\ndef work(entity): return FOUND"
    operation_id = queue.enqueue({}, f"{write_module(text)}.work")["operation_id"]
    async with running(QueueWorker(config)):
        assert (await queue.await_for(operation_id, timeout=10)).result == 7


@pytest.mark.parametrize(
    "fault", ["raise ConnectionError('no database')", "import no_such_module", "raise SystemExit", "("]
)
async def test_what_a_module_raises_at_import_is_a_failed_attempt(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, write_module: Write, fault: str
) -> None:
    """No name is missing: it is retried as configured, and dead-lettered with the others at the end."""
    module = write_module(f"def work(entity): ...\n{fault}")
    queue.enqueue({}, f"{module}.work", retry_config=QueueRetryConfig.fixed(0.01, max_attempts=3))
    letter = await first_letter(config, client)
    assert (letter["error_type"], letter["attempts"]) == ("ImportFailedError", 3)
    assert letter["failure_reason"].startswith(f"module '{module}' cannot be imported: ")
    assert documents(client, config.system_errors_queue) == []


async def test_what_was_missing_at_the_first_import_may_be_there_at_the_next(
    queue: QueueManager, config: QueueConfig, write_module: Write, tmp_path: Path
) -> None:
    text = f"def work(entity): return 'worked'\nfrom pathlib import Path\nPath({str(tmp_path / 'there')!r}).read_text()"
    retry = QueueRetryConfig.fixed(0.2, max_attempts=10)
    operation_id = queue.enqueue({}, f"{write_module(text)}.work", retry_config=retry)["operation_id"]
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics()["retried"] > 0, "the import failed")
        (tmp_path / "there").touch()
        assert (await queue.await_for(operation_id, timeout=10)).result == "worked"


async def test_a_worker_without_a_dependency_leaves_the_queue_to_those_that_have_it(
    queue: QueueManager, config: QueueConfig, make_config: MakeConfig, write_module: Write
) -> None:
    """Few of its backlog fail, though each would be tried once only."""
    module = write_module("def work(entity): ...\nimport no_such_module")
    done: list[Any] = []

    def failed() -> int:
        return int(queue.get_queue_status()[config.failures_queue])

    whole = make_config()
    whole.register_callback(done.append, "work", module)
    queue.enqueue_batch([{"n": n} for n in range(300)], f"{module}.work", retry_config=QueueRetryConfig(max_attempts=1))
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics().get("queue_rests"), "it leaves the queue alone", 20.0)
        async with running(QueueWorker(whole)):
            await eventually(lambda: len(done) + failed() == 300, "the other does the rest", 20.0)
    assert 5 <= failed() <= 20


async def test_a_module_is_not_imported_for_a_name_that_it_does_not_define(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, write_module: Write
) -> None:
    module = write_module(BLOCKING)
    queue.enqueue({}, f"{module}.anything")
    letter = await first_letter(config, client, "system_errors")
    assert (letter["error_type"], letter["attempts"]) == ("UnresolvableNameError", 0)
    assert (Dispatcher.imports, module in sys.modules) == (0, False)


async def test_a_callback_s_module_is_imported_in_a_thread_too(
    queue: QueueManager, config: QueueConfig, inbox: Inbox, write_module: Write
) -> None:
    module = write_module(BLOCKING)
    queue.enqueue({}, inbox.put, on_success=f"{module}.work")
    async with running(QueueWorker(config, max_workers=2)):
        assert await asyncio.to_thread(Dispatcher.reached.wait, 10)
        queue.enqueue_batch([{}] * 5, inbox.put)
        assert len(await inbox.take(6)) == 6
        Dispatcher.opened.set()
        await eventually(lambda: queue.get_queue_status()[f"{config.queue_prefix}running"] == 0, "the callback has run")
    assert config.get_metrics()["system_errors"] == 0


async def test_a_name_is_resolved_once(queue: QueueManager, config: QueueConfig, write_module: Write) -> None:
    module = write_module("def work(entity): ...")
    asked: list[Any] = []
    import_function = config.registry.application.import_function

    class Counting:
        """An application that counts what it is asked for."""

        allowed_modules = None

        def import_function(self, name: str, module: str | None) -> Any:
            asked.append(name)
            return import_function(name, module)

    config.registry.application = Counting()  # type: ignore[assignment]
    queue.enqueue_batch([{}] * 50, f"{module}.work")
    async with running(QueueWorker(config)):
        await eventually(lambda: config.get_metrics()["processed"] == 50, "all are done")
    assert asked == ["work"]
