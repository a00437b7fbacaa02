"""Processors in child processes: killed at their limits, harmless in their crashes, and gone with their worker."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from queue_system import (
    InvalidInputError,
    OperationRecord,
    QueueConfig,
    QueueManager,
    QueueRetryConfig,
    QueueWorker,
    run_in_process,
)
from queue_system.execution.runners import processes
from tests.contract.support import python
from tests.flow import marked
from tests.kit.contents import documents, next_letter
from tests.kit.inbox import Inbox
from tests.kit.operations import ONCE
from tests.kit.waiting import DEADLINE_S, eventually
from tests.kit.workers import running

SCRIPT = """\
import asyncio, os
from queue_system import QueueConfig, QueueManager, QueueWorker, run_in_process

@run_in_process
def double(n):
    return 2 * n

async def main():
    config = QueueConfig(redis_url=os.environ["URL"], queue_prefix=os.environ["PREFIX"])
    queue, worker = QueueManager(config), QueueWorker(config)
    await worker.start()
    record = await queue.await_for(queue.enqueue(21, double)["operation_id"], timeout=20)
    print(record.status, record.result)
    await worker.stop()

if __name__ == "__main__":
    asyncio.run(main())
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ids_in(file: Path) -> list[int]:
    """Wait for the process ids that a processor tells."""
    await eventually(file.exists, "the processor runs")
    return [int(word) for word in file.read_text().split()]  # noqa: ASYNC240 - a few bytes


class Bench:
    """Enqueues and reads what became of it."""

    def __init__(self, config: QueueConfig, queue: QueueManager, client: redis.Redis) -> None:
        self.config, self.queue, self.client = config, queue, client

    def enqueue(self, processor: Callable[..., Any] | str, entity: Any, **options: Any) -> str:
        """Enqueue to run once at most."""
        operation_id: str = self.queue.enqueue(entity, processor, retry_config=ONCE, **options)["operation_id"]
        return operation_id

    async def finished(self, operation_id: str) -> OperationRecord:
        """Wait until an operation is settled for good."""
        return await self.queue.await_for(operation_id, DEADLINE_S)

    async def outcome(self, processor: Callable[..., Any] | str, entity: Any, **options: Any) -> OperationRecord:
        """Enqueue and wait for the end."""
        return await self.finished(self.enqueue(processor, entity, **options))


@pytest.fixture
def bench(config: QueueConfig, queue: QueueManager, client: redis.Redis) -> Bench:
    return Bench(config, queue, client)


async def test_a_marked_processor_runs_in_a_child_that_serves_again_and_ends_with_its_worker(bench: Bench) -> None:
    entity = {"text": "line\nbreak \u2028 \U0001f40d", "n": [1, 2.5, None, True], "deep": {"": {}}}
    async with running(QueueWorker(bench.config, max_workers=1)):
        first = (await bench.outcome(marked.identify, entity)).result
        second = (await bench.outcome(marked.identify, [])).result
        assert is_alive(first["pid"])
    assert (first["entity"], first["parent"]) == (entity, os.getpid())
    assert first["pid"] == second["pid"] != os.getpid()
    assert not is_alive(first["pid"])


async def test_a_decorator_above_the_mark_runs_in_the_child_with_what_it_wraps(bench: Bench) -> None:
    async with running(QueueWorker(bench.config)):
        result = (await bench.outcome(marked.identify_and_note, {"n": 1})).result
    assert (result["noted"], result["parent"]) == (True, os.getpid())


async def test_a_wrapper_under_another_name_is_not_skipped_but_fails_and_says_why(bench: Bench) -> None:
    """A child process would find the wrapped function in its place, and run that alone."""
    bench.config.register_callback(marked.wrapped_elsewhere, "elsewhere", "shop")
    async with running(QueueWorker(bench.config)):
        record = await bench.outcome("shop.elsewhere", {"n": 1})
    assert (record.status, record.error_type) == ("failed", "InvalidInputError")
    assert "would run it without the wrapper" in str(record.error)


async def test_no_more_children_run_than_the_worker_has_slots(bench: Bench, tmp_path: Path) -> None:
    files = [tmp_path / str(n) for n in range(4)]
    worker = QueueWorker(bench.config, max_workers=2)
    for file in files:
        bench.enqueue(marked.spin_and_tidy, {"file": str(file)}, timeout=1.0)
    async with running(worker):
        await eventually(lambda: sum(file.exists() for file in files) == 2, "two run")
        assert worker._engine is not None
        assert len(worker._engine.executor.processes._children) == 2
        await eventually(lambda: all(file.exists() for file in files), "the others follow")


async def test_an_endless_loop_is_really_gone_when_its_limit_is_judged(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with running(QueueWorker(bench.config, max_workers=1)) as worker:
        record = await bench.outcome(marked.spin, {"file": str(file)}, timeout=1.0)
        (pid,) = await ids_in(file)
        assert not is_alive(pid)
        assert (record.status, record.error_type) == ("failed", "TimeoutError")
        assert worker.config.get_metrics()["timeouts"] == 1
        assert (await bench.outcome(marked.identify, {})).result["pid"] != pid


async def test_what_must_go_may_tidy_up_first(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with running(QueueWorker(bench.config, max_workers=1)):
        await bench.outcome(marked.spin_and_tidy, {"file": str(file)}, timeout=1.0)
    assert file.with_suffix(".tidied").exists()


async def test_a_processor_that_no_signal_handler_reaches_is_killed_with_all_it_started(
    bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    async with running(QueueWorker(bench.config, max_workers=1)):
        await bench.outcome(marked.hold_the_interpreter_with_a_child, {"file": str(file)}, timeout=1.0)
        pids = await ids_in(file)
        assert len(pids) == 2
        await eventually(lambda: not any(map(is_alive, pids)), "both are gone")


async def test_a_child_that_dies_fails_its_own_operation_only(bench: Bench, tmp_path: Path) -> None:
    neighbour = tmp_path / "pid"
    deaths = {
        "the process died with signal 9 (Killed)": (marked.die, {"signal": int(signal.SIGKILL)}),
        "the process died with signal 11 (Segmentation fault)": (marked.crash, {}),
        "the process exited with code 3": (marked.leave, {"code": 3}),
        "the process exited with code 0": (marked.leave, {"code": 0}),
    }
    worker = QueueWorker(bench.config, max_workers=5)
    await worker.start()
    bench.enqueue(marked.spin_and_tidy, {"file": str(neighbour)})
    (pid,) = await ids_in(neighbour)
    operations = {error: bench.enqueue(processor, entity) for error, (processor, entity) in deaths.items()}
    for error, operation_id in operations.items():
        record = await bench.finished(operation_id)
        assert (record.status, record.error_type) == ("failed", "ProcessDiedError")
        assert str(record.error).startswith(error)
    assert is_alive(pid)
    assert (await bench.outcome(marked.identify, 1)).status == "succeeded"
    await worker.stop(grace=0)


async def test_a_death_is_a_normal_failed_attempt_with_retries(bench: Bench) -> None:
    retries = QueueRetryConfig.custom([0.0, 0.0, 0.0])
    async with running(QueueWorker(bench.config, max_workers=1)):
        bench.queue.enqueue({"code": 5}, marked.leave, retry_config=retries)
        dead_letter = await next_letter(bench.client, bench.config.failures_queue)
    assert (dead_letter["attempts"], dead_letter["error_type"]) == (3, "ProcessDiedError")
    assert dead_letter.get("crashes", 0) == 0


async def test_errors_come_back_as_type_and_text_and_large_values_whole(bench: Bench) -> None:
    async with running(QueueWorker(bench.config, max_workers=1)):
        record = await bench.outcome(marked.fail, {"account": 7})
        assert (record.error_type, record.error) == ("LookupError", "no such account: 7")
        record = await bench.outcome(marked.return_much, {"bytes": 900_000, "padding": "y" * 900_000})
        assert record.result == "x" * 900_000


async def test_a_result_that_json_cannot_carry_stays_a_success_and_says_why_it_is_lost(
    bench: Bench, inbox: Inbox
) -> None:
    async with running(QueueWorker(bench.config, max_workers=1)):
        record = await bench.outcome(marked.return_an_object, {}, on_success=inbox.put)
        assert record.status == "succeeded"
        assert record.result is None
        assert "module" in str(record.result_error)
        assert (await inbox.next())["result_error"] == record.result_error


async def test_stop_kills_what_outlives_the_grace_and_hands_it_back_unspent(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    worker = QueueWorker(bench.config, max_workers=1)
    operation_id = bench.enqueue(marked.spin, {"file": str(file)})
    await worker.start()
    (pid,) = await ids_in(file)
    await worker.stop(grace=0.1)
    assert not is_alive(pid)
    (item,) = documents(bench.client, bench.config.get_queue_key("spin"))
    assert (item["operation_id"], item.get("attempts", 0), item.get("crashes", 0)) == (operation_id, 0, 0)


def test_a_script_that_is_run_may_mark_its_own_functions(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    variables = {"URL": bench.config.redis_url or "", "PREFIX": bench.config.queue_prefix}
    with python("script.py", cwd=tmp_path, **variables) as process:
        output, errors = process.communicate(timeout=30)
    assert (output, process.returncode) == ("succeeded 42\n", 0), errors


async def test_an_idle_child_leaves_after_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_IDLE_S", 0.05)
    async with running(QueueWorker(bench.config, max_workers=1)):
        pid = (await bench.outcome(marked.identify, {})).result["pid"]
        await eventually(lambda: not is_alive(pid), "the idle child leaves")
        assert (await bench.outcome(marked.identify, {})).result["pid"] != pid


async def test_an_idle_child_that_was_killed_costs_no_attempt(bench: Bench) -> None:
    async with running(QueueWorker(bench.config, max_workers=1)):
        pid = (await bench.outcome(marked.identify, {})).result["pid"]
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert (await bench.outcome(marked.identify, {})).status == "succeeded"


async def test_a_signal_to_all_processes_of_a_service_ends_no_child_that_works(bench: Bench, tmp_path: Path) -> None:
    """A service manager may send SIGTERM to every process at once; the worker decides what ends."""
    file = tmp_path / "pid"
    async with running(QueueWorker(bench.config, max_workers=1)):
        operation_id = bench.enqueue(marked.spin_and_tidy, {"file": str(file)}, timeout=1.5)
        (pid,) = await ids_in(file)
        os.kill(pid, signal.SIGTERM)
        assert (await bench.finished(operation_id)).error_type == "TimeoutError"


def _unmarkable() -> list[Any]:
    async def coroutine(entity: Any) -> None: ...

    def closure(entity: Any) -> None: ...

    class Holder:
        def method(self, entity: Any) -> None: ...

    return [coroutine, closure, Holder().method, Holder, lambda entity: None, len, 5]


@pytest.mark.parametrize("processor", _unmarkable())
def test_what_a_child_could_not_find_or_run_cannot_be_marked(processor: Any) -> None:
    with pytest.raises(InvalidInputError, match="processor: "):
        run_in_process(processor)


def test_a_marked_processor_is_still_a_plain_function() -> None:
    assert marked.identify(1)["pid"] == os.getpid()
