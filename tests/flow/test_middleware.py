"""Middleware: what surrounds an attempt is a part of it, hooks change nothing, and nothing leaks into the next one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
import redis
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from queue_system import (
    InvalidInputError,
    Middleware,
    QueueConfig,
    QueueManager,
    QueueRetryConfig,
    QueueWorker,
    RunningOperation,
    UnresolvableNameError,
    run,
    tracing,
)
from queue_system.execution import middleware as seam
from queue_system.testing import run_until_idle
from tests.flow import hostile, marked
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, next_letter, read_record
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.operations import ONCE, TWICE, fail, raising
from tests.kit.waiting import eventually
from tests.kit.workers import first_letter, running

LONG_S = 60.0

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Told(Middleware):
    """Notes what its hooks are told, each line as a tuple that begins with the hook's name."""

    def __init__(self, lines: list[Any], name: str = "") -> None:
        self.lines = lines
        self.name = name

    def note(self, hook: str, operation: RunningOperation, *told: Any) -> None:
        """Note one call."""
        self.lines.append((f"{self.name}{hook}", operation.attempt, *told))


class TellsInThreads(Told):
    """Has sync hooks."""

    def on_start(self, operation: RunningOperation) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.note("start", operation)

    def on_success(self, operation: RunningOperation, result: Any) -> None:
        self.note("success", operation, result)

    def on_failure(self, operation: RunningOperation, error: BaseException) -> None:
        self.note("failure", operation, error)

    def on_retry(self, operation: RunningOperation, error: BaseException, delay: float) -> None:
        self.note("retry", operation, error, delay)


class TellsInTheLoop(Told):
    """Has async hooks."""

    async def on_start(self, operation: RunningOperation) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.note("start", operation)

    async def on_success(self, operation: RunningOperation, result: Any) -> None:
        await asyncio.sleep(0)
        self.note("success", operation, result)

    async def on_failure(self, operation: RunningOperation, error: BaseException) -> None:
        self.note("failure", operation, error)

    async def on_retry(self, operation: RunningOperation, error: BaseException, delay: float) -> None:
        self.note("retry", operation, error, delay)


KINDS = [TellsInThreads, TellsInTheLoop]


class Surrounds(Middleware):
    """Notes when an attempt enters and leaves it."""

    def __init__(self, lines: list[Any], name: str) -> None:
        self.lines = lines
        self.name = name

    async def around(self, operation: RunningOperation, call_next: Any) -> Any:
        self.lines.append(f"{self.name} in")
        try:
            return await call_next(operation)
        finally:
            self.lines.append(f"{self.name} out")


def hook_of(name: str, call: Any) -> Any:
    """An object with one method."""
    return type("Own", (), {name: staticmethod(call)})()


def queue_of(config: QueueConfig) -> Any:
    """A manager that a type checker lets enqueue any JSON."""
    return QueueManager(config)


async def echo(entity: Any) -> Any:
    return entity


async def ran(config: QueueConfig, entity: Any, processor: Any, **options: Any) -> None:
    """Enqueue one operation and run it, retries included."""
    queue_of(config).enqueue(entity, processor, **options)
    await drained(config)


async def drained(config: QueueConfig, *, slots: int = 1) -> None:
    """Run all that waits, retries included."""
    await run_until_idle(QueueWorker(config, max_workers=slots), delayed="wait", timeout=45)


@pytest.fixture
def lines() -> list[Any]:
    """What a test's middleware notes."""
    return []


@pytest.mark.parametrize("kind", KINDS)
async def test_hooks_are_told_of_a_start_a_retry_a_success_and_a_failure_for_good(
    make_config: MakeConfig, kind: type[Told], lines: list[Any]
) -> None:
    attempts = 0

    def flaky(entity: Any) -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("not yet")
        return "done"

    config = make_config(middleware=[kind(lines)])
    queue = queue_of(config)
    queue.enqueue({}, flaky, retry_config=TWICE)
    await drained(config)
    queue.enqueue({}, fail, retry_config=QueueRetryConfig.fixed(0.25, max_attempts=2))
    await drained(config)
    assert [line[:2] for line in lines] == [
        ("start", 1), ("retry", 1), ("start", 2), ("success", 2),
        ("start", 1), ("retry", 1), ("start", 2), ("failure", 2),
    ]  # fmt: skip
    assert [repr(line[2]) for line in (lines[1], lines[5], lines[7])] == [
        "ValueError('not yet')",
        *["ValueError('boom')"] * 2,
    ]
    assert lines[3][2] == "done"
    assert lines[5][3] == pytest.approx(0.25, rel=0.2)


async def test_an_operation_tells_what_there_is_to_know_of_it(make_config: MakeConfig, inbox: Inbox) -> None:
    seen: list[RunningOperation] = []

    async def watch(operation: RunningOperation, call_next: Any) -> Any:
        seen.append(operation)
        return await call_next(operation)

    config = make_config(middleware=[watch])
    queue = queue_of(config)
    queue.enqueue(
        {"n": 1}, inbox.put, queue_name="mail", priority="high", operation_id="op", timeout=9.0,
        deduplication_key="key", retry_config=QueueRetryConfig(max_attempts=3),
    )  # fmt: skip
    async with running(QueueWorker(config)):
        await inbox.next()
        (worker_id,) = [worker.worker_id for worker in queue.list_workers()]
    (operation,) = seen
    assert operation == RunningOperation(
        operation_id="op", processor=operation.processor, queue="mail", priority="high", entity={"n": 1}, attempt=1,
        max_attempts=3, timeout=9.0, enqueued_at=operation.enqueued_at, deduplication_key="key", phase="",
        worker_id=worker_id,
    )  # fmt: skip
    assert operation.processor.startswith("tests.kit.inbox.")
    assert operation.enqueued_at is not None
    assert operation.enqueued_at > 1e9
    with pytest.raises(AttributeError):
        operation.attempt = 2  # type: ignore[misc]  # that is what must not be possible


async def test_the_first_entry_is_the_outermost_and_hooks_stand_outside_of_all_arounds(make_config: MakeConfig) -> None:
    lines: list[Any] = []
    config = make_config(
        middleware=[
            TellsInTheLoop(lines, "a "), Surrounds(lines, "b"), Surrounds(lines, "c"), TellsInThreads(lines, "d "),
        ]
    )  # fmt: skip
    await ran(config, 7, echo)
    assert lines == [
        ("a start", 1), ("d start", 1), "b in", "c in", "c out", "b out", ("d success", 1, 7), ("a success", 1, 7),
    ]  # fmt: skip


async def test_what_around_returns_is_the_result_and_without_call_next_nothing_runs(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox
) -> None:
    async def skip(operation: RunningOperation, call_next: Any) -> Any:
        return "skipped" if operation.entity == "skip" else [await call_next(operation)]

    def work(entity: Any) -> str:
        inbox.put(entity)
        return "done"

    config = make_config(middleware=[skip])
    queue = queue_of(config)
    for entity in ("skip", "run"):
        queue.enqueue(entity, work, operation_id=entity)
    await drained(config)
    assert await inbox.next() == "run"
    assert inbox.empty
    results = [read_record(client, config, each).body["result"] for each in ("skip", "run")]
    assert results == ["skipped", ["done"]]


@pytest.mark.parametrize("processor", ["loop", "thread", "process"])
async def test_another_entity_reaches_the_processor_wherever_it_runs_and_no_retry(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox, processor: str
) -> None:
    attempts: list[Any] = []

    async def change(operation: RunningOperation, call_next: Any) -> Any:
        attempts.append(operation.entity)
        result = await call_next(operation.with_entity({"changed": operation.entity}))
        if operation.attempt == 1:
            raise ValueError("once more")
        return result

    chosen: Any = {"loop": echo, "thread": lambda entity: entity, "process": marked.identify}[processor]
    config = make_config(middleware=[change])
    await ran(config, "as it was", chosen, operation_id="op", retry_config=TWICE)
    result = read_record(client, config, "op").body["result"]
    assert (result["entity"] if processor == "process" else result) == {"changed": "as it was"}
    assert attempts == ["as it was"] * 2


async def test_what_around_raises_is_the_error_of_the_attempt(make_config: MakeConfig, client: redis.Redis) -> None:
    lines: list[Any] = []

    async def translate(operation: RunningOperation, call_next: Any) -> Any:
        try:
            return await call_next(operation)
        except ValueError as error:
            raise LookupError("translated") from error

    config = make_config(middleware=[TellsInTheLoop(lines), translate])
    await ran(config, {}, fail, retry_config=ONCE)
    dead_letter = await next_letter(client, config.failures_queue)
    assert (dead_letter["error_type"], dead_letter["failure_reason"]) == ("LookupError", "translated")
    assert "ValueError: boom" in dead_letter["traceback"]
    assert repr(lines[-1][2]) == "LookupError('translated')"


async def test_an_error_of_a_child_process_passes_as_one_of_its_name_and_keeps_its_traceback(
    make_config: MakeConfig, client: redis.Redis, lines: list[Any]
) -> None:
    config = make_config(middleware=[TellsInTheLoop(lines), Surrounds(lines, "a")])
    await ran(config, {}, marked.fail, retry_config=ONCE)
    dead_letter = await next_letter(client, config.failures_queue)
    told = lines[-1][2]
    assert (type(told).__name__, str(told)) == (dead_letter["error_type"], dead_letter["failure_reason"])
    assert "marked.py" in dead_letter["traceback"]


HARMS = [
    raising(LookupError("mine")), raising(SystemExit(7)), raising(KeyboardInterrupt), hostile.cancel_itself,
    raising(asyncio.CancelledError), raising(LookupError("mine"), is_async=False),
    raising(SystemExit(7), is_async=False),
]  # fmt: skip
HOOKS = ["on_start", "on_success", "on_retry", "on_failure"]


@pytest.mark.parametrize("harm", [*HARMS, hostile.cancel_itself_and_return], ids=hostile.named)
async def test_a_hook_that_goes_wrong_is_logged_once_an_attempt_and_harms_nothing(
    make_config: MakeConfig, client: redis.Redis, log: LineLogger, harm: Callable[..., Any], lines: list[Any]
) -> None:
    """Neither the operation, nor what becomes of it, nor the other hooks, nor the worker."""
    broken = [hook_of(name, harm) for name in HOOKS]
    config = make_config(middleware=[TellsInTheLoop(lines), *broken, TellsInThreads(lines)], logger=log)
    queue = queue_of(config)
    for _ in range(2):
        queue.enqueue({"n": 1}, echo, retry_config=ONCE)
        queue.enqueue({}, fail, retry_config=TWICE)
    await drained(config, slots=2)
    counted = config.get_metrics()
    assert (counted["processed"], counted["retried"], counted["failed"]) == (2, 2, 2)
    assert [dead_letter["error_type"] for dead_letter in documents(client, config.failures_queue)] == ["ValueError"] * 2
    names = sorted(line[0] for line in lines)
    assert names == sorted(["start"] * 12 + ["success"] * 4 + ["retry"] * 4 + ["failure"] * 4)
    told = sorted(fields["hook"] for fields in log.of("a middleware hook failed"))
    assert told == sorted(["on_start"] * 6 + ["on_success"] * 2 + ["on_retry"] * 2 + ["on_failure"] * 2)


@pytest.mark.parametrize("harm", [harm for harm in HARMS if asyncio.iscoroutinefunction(harm)], ids=hostile.named)
async def test_whatever_an_around_raises_is_a_failed_attempt_and_costs_no_slot(
    make_config: MakeConfig, client: redis.Redis, harm: Callable[..., Any]
) -> None:
    async def around(operation: RunningOperation, call_next: Any) -> Any:
        return await (harm() if operation.entity == "harm" else call_next(operation))

    config = make_config(middleware=[around])
    queue = queue_of(config)
    queue.enqueue_batch(["harm"] * 3, echo, retry_config=TWICE)
    await drained(config, slots=2)
    queue.enqueue_batch(["fine"] * 3, echo)
    await drained(config, slots=2)
    counted = config.get_metrics()
    assert (counted["retried"], counted["failed"], counted["processed"]) == (3, 3, 3)


async def test_a_processor_that_exits_within_a_task_of_an_around_is_a_failed_attempt(
    make_config: MakeConfig, client: redis.Redis
) -> None:
    async def with_a_limit(operation: RunningOperation, call_next: Any) -> Any:
        return await asyncio.create_task(call_next(operation))

    config = make_config(middleware=[with_a_limit])
    await ran(config, {}, raising(SystemExit(7)), retry_config=ONCE)
    assert "SystemExit" in (await next_letter(client, config.failures_queue))["failure_reason"]


HANGING = [hostile.hang, hostile.ignore_cancellations, hostile.block]


@pytest.mark.parametrize("harm", HANGING, ids=hostile.named)
async def test_a_hook_that_hangs_after_the_end_is_given_up_and_the_verdict_stands(
    make_config: MakeConfig, client: redis.Redis, log: LineLogger, monkeypatch: pytest.MonkeyPatch, harm: Any
) -> None:
    monkeypatch.setattr(seam, "HOOK_WITHIN_S", 0.05)
    monkeypatch.setattr(seam, "_TIDY_UP_S", 0.05)
    config = make_config(middleware=[hook_of("on_success", harm)], logger=log)
    queue = queue_of(config)
    for name in ("a", "b"):
        queue.enqueue(name, echo, operation_id=name, on_success=echo)
    async with running(QueueWorker(config, max_workers=1)):
        await eventually(lambda: len(log.of("a middleware hook failed")) == 2)
        await eventually(lambda: config.get_metrics()["processed"] == 2)
        hostile.released.set()
    assert [read_record(client, config, name).status for name in ("a", "b")] == ["succeeded"] * 2
    assert "longer than" in str(log.of("a middleware hook failed")[0]["exc_info"])


@pytest.mark.parametrize("harm", HANGING, ids=hostile.named)
async def test_a_start_hook_that_hangs_ends_its_attempt_at_the_limit(
    make_config: MakeConfig, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, inbox: Inbox, harm: Any
) -> None:
    monkeypatch.setattr(seam, "_TIDY_UP_S", 0.05)
    lines: list[Any] = []
    config = make_config(middleware=[TellsInTheLoop(lines), hook_of("on_start", harm)])
    queue = queue_of(config)
    queue.enqueue({}, inbox.put, retry_config=ONCE, timeout=0.1)
    async with running(QueueWorker(config, max_workers=1)):
        dead_letter = await next_letter(client, config.failures_queue)
        await eventually(lambda: len(lines) == 2)
        hostile.released.set()
    assert dead_letter["error_type"] == "TimeoutError"
    assert inbox.empty
    assert (lines[-1][0], type(lines[-1][2])) == ("failure", TimeoutError)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_an_around_lies_within_the_limit_and_hooks_are_told_of_the_timeout(
    make_config: MakeConfig, client: redis.Redis, attempts: int, lines: list[Any]
) -> None:
    async def slow(operation: RunningOperation, call_next: Any) -> Any:
        await asyncio.sleep(0 if operation.attempt == 2 else LONG_S)
        return await call_next(operation)

    config = make_config(middleware=[TellsInTheLoop(lines), slow])
    retry_config = QueueRetryConfig.fixed(0.0, max_attempts=attempts)
    await ran(config, 7, echo, retry_config=retry_config, timeout=0.1)
    assert lines[1][0] == ("failure" if attempts == 1 else "retry")
    assert isinstance(lines[1][2], TimeoutError)
    assert config.get_metrics()["timeouts"] == 1


async def test_hooks_are_told_of_an_operation_that_is_abandoned(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, lines: list[Any]
) -> None:
    monkeypatch.setattr("queue_system.execution.executor.CANCEL_AGAIN_S", 0.02)
    monkeypatch.setattr("queue_system.execution.executor.GIVE_UP_AFTER_S", 0.05)
    config = make_config(middleware=[TellsInThreads(lines)])
    queue_of(config).enqueue({}, hostile.ignore_cancellations, retry_config=ONCE, timeout=0.05)
    async with running(QueueWorker(config, max_workers=1)):
        await eventually(lambda: len(lines) == 2)
        hostile.released.set()
    assert (lines[-1][0], type(lines[-1][2])) == ("failure", TimeoutError)


async def test_a_stop_cancels_around_with_the_processor_and_tells_no_hook(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox, lines: list[Any]
) -> None:
    async def watch(operation: RunningOperation, call_next: Any) -> Any:
        try:
            return await call_next(operation)
        except asyncio.CancelledError:
            lines.append("cancelled")
            raise

    async def work(entity: Any) -> None:
        inbox.put("runs")
        await asyncio.sleep(LONG_S)

    config = make_config(middleware=[TellsInTheLoop(lines), watch])
    queue_of(config).enqueue({}, work)
    worker = QueueWorker(config)
    await worker.start()
    await inbox.next()
    await worker.stop(grace=0.0)
    assert lines == [("start", 1), "cancelled"]
    assert client.llen(config.get_queue_key("work")) == 1


@pytest.mark.parametrize("harm", HANGING, ids=hostile.named)
async def test_a_hook_that_hangs_holds_up_no_stop_and_no_settlement(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox, harm: Any, lines: list[Any]
) -> None:
    async def tell_and_hang(*_: Any) -> None:
        inbox.put("told")
        await harm()

    def tell_and_block(*_: Any) -> None:
        inbox.put("told")
        harm()

    hook = tell_and_block if harm is hostile.block else tell_and_hang
    config = make_config(middleware=[TellsInTheLoop(lines), hook_of("on_success", hook)])
    queue = queue_of(config)
    queue.enqueue(7, echo, operation_id="op")
    worker = QueueWorker(config, max_workers=1)
    await worker.start()
    assert await inbox.next() == "told"
    await eventually(lambda: read_record(client, config, "op").status == "succeeded", "settled while the hook runs")
    await asyncio.wait_for(worker.stop(grace=0.0), 20)
    assert client.hlen(config.keys.workers) == 0
    assert lines == [("start", 1)], "once the worker stops, no further hook is begun"


async def test_a_name_that_leads_nowhere_is_a_failure_that_never_started(
    make_config: MakeConfig, client: redis.Redis, lines: list[Any]
) -> None:
    config = make_config(middleware=[TellsInTheLoop(lines), Surrounds(lines, "a")])
    queue_of(config).enqueue({}, "queue_system.no_such_name")
    await first_letter(config, client, "system_errors")
    ((name, _, error),) = lines
    assert name == "failure"
    assert isinstance(error, UnresolvableNameError)


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_callbacks_pass_through_around_with_their_phase_and_tell_no_hook(
    make_config: MakeConfig, inbox: Inbox, kind: str, lines: list[Any]
) -> None:
    async def mark(operation: RunningOperation, call_next: Any) -> Any:
        if not operation.phase:
            return await call_next(operation)
        return await call_next(operation.with_entity({**operation.entity, "phase": operation.phase}))

    async def note(data: Any) -> None:
        inbox.put(data["phase"])

    config = make_config(middleware=[TellsInTheLoop(lines), mark])
    queue = queue_of(config)
    callback = note if kind == "loop" else lambda data: inbox.put(data["phase"])
    for processor in (echo, fail):
        queue.enqueue({}, processor, retry_config=ONCE, on_success=callback, on_failure=callback)
    await drained(config)
    assert sorted(await inbox.take(2)) == ["on_failure", "on_success"]
    assert sorted(line[0] for line in lines) == ["failure", "start", "start", "success"]


@pytest.mark.parametrize("place", ["around", "sync on_start", "async on_start"])
@pytest.mark.parametrize("processor", ["loop", "thread"])
async def test_a_context_variable_that_middleware_sets_reaches_the_processor_and_no_other_operation(
    make_config: MakeConfig, inbox: Inbox, place: str, processor: str
) -> None:
    seen_at_end: list[str] = []

    def set_tenant(operation: RunningOperation) -> None:
        assert tenant.get() == "nobody"
        if operation.entity:
            tenant.set(operation.entity)

    async def set_tenant_async(operation: RunningOperation) -> None:
        set_tenant(operation)

    async def around(operation: RunningOperation, call_next: Any) -> Any:
        set_tenant(operation)
        return await call_next(operation)

    def tell(entity: Any) -> None:
        inbox.put((entity, tenant.get()))

    async def atell(entity: Any) -> None:
        tell(entity)

    def look(operation: RunningOperation, result: Any) -> None:
        seen_at_end.append(tenant.get())

    entry: Any = {"around": around, "sync on_start": hook_of("on_start", set_tenant)}.get(
        place, hook_of("on_start", set_tenant_async)
    )
    config = make_config(middleware=[entry, hook_of("on_success", look)])
    queue = queue_of(config)
    entities = ["acme", "", "other", ""]
    queue.enqueue_batch(entities, atell if processor == "loop" else tell)
    await drained(config)
    assert await inbox.take(4) == [(entity, entity or "nobody") for entity in entities]
    assert seen_at_end == [entity or "nobody" for entity in entities]


class Scope:
    """What an error tracker keeps in a context variable, and changes in place."""

    current: ContextVar[Scope | None] = ContextVar("scope", default=None)

    def __init__(self, tags: dict[str, str]) -> None:
        self.tags = tags


async def test_a_scope_that_is_forked_around_an_operation_keeps_what_the_processor_adds(
    make_config: MakeConfig, inbox: Inbox
) -> None:
    outer = Scope({"service": "shop"})
    Scope.current.set(outer)

    async def fork_scope(operation: RunningOperation, call_next: Any) -> Any:
        token = Scope.current.set(Scope(dict(outer.tags)))
        try:
            return await call_next(operation)
        finally:
            Scope.current.reset(token)

    def add_a_tag(entity: Any) -> None:
        scope = Scope.current.get()
        assert scope is not None
        scope.tags[entity] = "1"
        inbox.put(dict(scope.tags))

    config = make_config(middleware=[fork_scope])
    queue_of(config).enqueue_batch(["a", "b"], add_a_tag)
    await drained(config)
    assert await inbox.take(2) == [{"service": "shop", "a": "1"}, {"service": "shop", "b": "1"}]
    assert outer.tags == {"service": "shop"}


async def test_what_middleware_traces_belongs_to_the_span_of_the_execution(make_config: MakeConfig) -> None:
    spans: list[int] = []
    provider = TracerProvider()

    def note_span(*_: Any) -> None:
        spans.append(trace.get_current_span().get_span_context().span_id)

    async def around(operation: RunningOperation, call_next: Any) -> Any:
        note_span()
        return await call_next(operation)

    config = make_config(
        middleware=[hook_of("on_start", note_span), around, hook_of("on_success", note_span)],
    )
    tracing.enable(config, tracer_provider=provider)
    await ran(config, 7, echo)
    assert len(spans) == 3
    assert len(set(spans)) == 1
    assert spans[0] != 0


async def test_traces_may_begin_and_end_while_a_worker_with_middleware_runs(
    make_config: MakeConfig, inbox: Inbox
) -> None:
    async def around(operation: RunningOperation, call_next: Any) -> Any:
        inbox.put(trace.get_current_span().get_span_context().is_valid)
        return await call_next(operation)

    config = make_config(middleware=[around])
    queue = queue_of(config)
    async with running(QueueWorker(config)):
        queue.enqueue(1, echo)
        assert await inbox.next() is False
        tracing.enable(config, tracer_provider=TracerProvider())
        queue.enqueue(1, echo)
        assert await inbox.next() is True
        config.tracing = None
        queue.enqueue(1, echo)
        assert await inbox.next() is False


class ForgetfulLogger(LineLogger):
    """Keeps no line, and so no error."""

    def error(self, message: str, **fields: Any) -> None: ...


async def test_an_error_is_kept_alive_by_nobody_after_its_operation(make_config: MakeConfig) -> None:
    """Not by a cycle either: else each error would stay until the collector comes round."""
    errors: list[weakref.ref[BaseException]] = []
    living: list[int] = []

    class OwnError(Exception):
        pass

    async def fail(entity: Any) -> None:
        raise OwnError

    class Watch(Middleware):
        async def around(self, operation: RunningOperation, call_next: Any) -> Any:
            living.append(sum(ref() is not None for ref in errors))
            return await call_next(operation)

        def on_failure(self, operation: RunningOperation, error: BaseException) -> None:
            errors.append(weakref.ref(error))

    config = make_config(middleware=[Watch(), Surrounds([], "")], logger=ForgetfulLogger())
    queue_of(config).enqueue_batch([{}] * 20, fail, retry_config=ONCE)
    gc.disable()
    try:
        async with running(QueueWorker(config, max_workers=1)):
            await eventually(lambda: len(errors) == 20)
    finally:
        gc.enable()
    assert max(living) <= 1


async def test_call_next_may_be_awaited_again_and_not_after_the_attempt(
    make_config: MakeConfig, client: redis.Redis
) -> None:
    kept: list[Any] = []
    calls = 0

    async def flaky(entity: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("not yet")
        return calls

    async def again(operation: RunningOperation, call_next: Any) -> Any:
        kept.append((operation, call_next))
        with contextlib.suppress(ValueError):
            return await call_next(operation)
        return await call_next(operation)

    config = make_config(middleware=[again])
    await ran(config, {}, flaky, operation_id="op", retry_config=ONCE)
    assert read_record(client, config, "op").body["result"] == 2
    ((operation, call_next),) = kept
    with pytest.raises(RuntimeError, match="the attempt is over"):
        await call_next(operation)


async def test_call_next_says_what_it_expects(make_config: MakeConfig, client: redis.Redis) -> None:
    async def wrong(operation: RunningOperation, call_next: Any) -> Any:
        return await call_next(operation.entity)

    config = make_config(middleware=[wrong])
    await ran(config, "x", echo, retry_config=ONCE)
    dead_letter = await next_letter(client, config.failures_queue)
    assert dead_letter["failure_reason"].startswith("call_next: expected a RunningOperation, got str;")


async def test_a_worker_tells_at_its_start_what_it_is_and_serves(make_config: MakeConfig, log: LineLogger) -> None:
    config = make_config(middleware=[Surrounds([], ""), echo_around], logger=log)
    async with running(QueueWorker(config, max_workers=3, queues=["mails", "reports"])):
        pass
    async with running(QueueWorker(make_config(logger=log))):
        pass
    first, second = log.of("worker started")
    assert (first["server"], first["prefix"]) == (config.endpoint().address, config.queue_prefix)
    assert (first["queues"], first["concurrency"]) == ("mails,reports", 3)
    assert first["middleware"] == "Surrounds,echo_around"
    assert second["queues"] == "all"
    assert "middleware" not in second


async def echo_around(operation: RunningOperation, call_next: Any) -> Any:
    return await call_next(operation)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_middleware_works_on_both_event_loops(make_config: MakeConfig, loop: str, lines: list[Any]) -> None:
    config = make_config(middleware=[TellsInTheLoop(lines), TellsInThreads(lines), Surrounds(lines, "a")])

    async def main() -> None:
        await ran(config, 7, echo)
        assert type(asyncio.get_running_loop()).__module__.startswith(loop)

    (run if loop == "uvloop" else asyncio.run)(main())
    assert len(lines) == 6


async def test_an_item_taken_by_hand_passes_through_middleware(make_config: MakeConfig, lines: list[Any]) -> None:
    config = make_config(middleware=[TellsInTheLoop(lines), Surrounds(lines, "a")])
    queue_of(config).enqueue(7, echo)
    assert await QueueWorker(config)._process_queue_item(0) is True
    assert lines == [("start", 1), "a in", "a out", ("success", 1, 7)]


def sync_around(operation: Any, call_next: Any) -> None: ...


async def generator_around(operation: Any, call_next: Any) -> Any:
    yield


@pytest.mark.parametrize(
    "middleware, problem",
    [
        (7, "expected a list of middleware, got int"),
        (echo_around, "expected a list of middleware, got function"),
        ({echo_around}, "expected a list of middleware, got set"),
        ([Middleware()], "expected an object with one of the methods around, on_start"),
        ([object()], "expected an object with one of the methods around, on_start"),
        ([None], "expected an object with one of the methods around, on_start"),
        ([TellsInThreads], "expected an object, got class TellsInThreads; pass an instance"),
        ([sync_around], "expected an async around(operation, call_next), got function sync_around; write async def"),
        ([hook_of("around", sync_around)], "expected an async around(operation, call_next), got"),
        ([generator_around], "await call_next(operation) instead of yielding"),
        ([hook_of("on_start", 7)], "expected on_start(operation) to be a function, got 7"),
        ([hook_of("on_retry", fail)], "expected on_retry(operation, error, delay), got function fail"),
        ([echo], "expected around(operation, call_next), got function echo with other parameters"),
    ],
)
def test_what_is_no_middleware_is_refused_when_the_configuration_is_made(middleware: Any, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        QueueConfig(middleware=middleware)
    assert str(caught.value).startswith("middleware: ")
    assert problem in str(caught.value)
    assert caught.value.field == "middleware"
