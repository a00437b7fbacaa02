"""Traces: each enqueue and each execution is a span by the conventions for messaging, and they are linked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from typing import Any

import pytest
import redis
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from queue_system import (
    InvalidInputError,
    QueueConfig,
    QueueManager,
    QueueWorker,
    ServerUnreachableError,
    tracing,
)
from queue_system.model.operation import Operation
from queue_system.model.verdict import Interrupted, Release
from tests.flow.hostile import hang
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents
from tests.kit.foreign import push
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.operations import ONCE, TWICE, either
from tests.kit.processes import environment
from tests.kit.servers import OwnServer, StartServer, frozen
from tests.kit.source import ROOT, SRC
from tests.kit.waiting import eventually
from tests.kit.workers import running

CLIENT_ID = f"{socket.gethostname()}:{os.getpid()}"


class Spans:
    """The spans that ended, and the provider that makes them."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("tests")

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of a name, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only span of a name."""
        (span,) = self.named(name)
        return span


@pytest.fixture
def spans(config: QueueConfig) -> Spans:
    """What `config` traces."""
    spans = Spans()
    tracing.enable(config, tracer_provider=spans.provider)
    return spans


def id_of(span: ReadableSpan) -> tuple[int, int]:
    """The trace and the span."""
    return pair(span.context)


def pair(found: SpanContext | None) -> tuple[int, int]:
    assert found is not None
    return found.trace_id, found.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [pair(link.context) for link in span.links]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def waiting_item(client: redis.Redis, prefix: str, queue: str) -> dict[str, Any]:
    """The only item that waits in a queue."""
    (item,) = documents(client, f"{prefix}{queue}")
    return item


async def test_an_operation_is_a_send_span_and_a_process_span_that_links_to_it(
    queue: QueueManager, config: QueueConfig, spans: Spans, server: OwnServer, inbox: Inbox
) -> None:
    async def greet(entity: Any) -> None:
        inbox.put(entity)

    with spans.tracer.start_as_current_span("request") as request:
        answer = queue.enqueue({"n": 1}, greet, priority="high")
    async with running(QueueWorker(config)):
        await inbox.next()

    sent, processed = spans.one("send greet"), spans.one("process greet")
    common = {
        "messaging.system": "redis",
        "messaging.destination.name": "greet",
        "messaging.message.id": answer["operation_id"],
        "messaging.client.id": CLIENT_ID,
        "server.address": str(server.socket_path),
        "queue_system.priority": "high",
    }
    assert sent.kind is SpanKind.PRODUCER
    assert attributes(sent) == common | {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    assert sent.parent is not None
    assert pair(sent.parent) == pair(request.get_span_context())
    assert processed.kind is SpanKind.CONSUMER
    assert attributes(processed) == common | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "queue_system.processor": attributes(processed)["queue_system.processor"],
        "queue_system.attempt": 1,
        "queue_system.verdict": "complete",
    }
    assert "greet" in attributes(processed)["queue_system.processor"]
    assert links(processed) == [id_of(sent)]
    assert processed.parent is None
    assert id_of(processed)[0] != id_of(sent)[0], "a trace of its own"
    assert sent.status.status_code is processed.status.status_code is StatusCode.UNSET


async def test_on_demand_the_process_span_is_also_a_child_of_the_send_span(
    queue: QueueManager, config: QueueConfig, spans: Spans, inbox: Inbox
) -> None:
    tracing.enable(config, parent=True, tracer_provider=spans.provider)
    await queue.aenqueue({"n": 1}, inbox.put, queue_name="greetings")
    async with running(QueueWorker(config)):
        await inbox.next()
    sent, processed = spans.one("send greetings"), spans.one("process greetings")
    assert pair(processed.parent) == id_of(sent)
    assert links(processed) == [id_of(sent)]


async def test_spans_that_a_processor_makes_are_children_of_the_process_span(
    queue: QueueManager, config: QueueConfig, spans: Spans, inbox: Inbox, is_async: bool
) -> None:
    def work(entity: Any) -> None:
        with spans.tracer.start_as_current_span("inner"):
            inbox.put(entity)

    queue.enqueue_batch([1, 2], either(work, is_async=is_async), queue_name="work")  # type: ignore[list-item] # any JSON
    async with running(QueueWorker(config, max_workers=1)):
        await inbox.take(2)
    parents = [pair(span.parent) for span in spans.named("inner")]
    assert sorted(parents) == sorted(id_of(span) for span in spans.named("process work"))
    assert len(set(parents)) == 2


async def test_each_attempt_is_a_span_and_says_which_and_how_it_ended(
    queue: QueueManager, config: QueueConfig, spans: Spans, inbox: Inbox
) -> None:
    attempts = 0

    async def flaky(entity: Any) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("not yet")

    queue.enqueue({"n": 1}, flaky, retry_config=TWICE, on_success=inbox.put)
    async with running(QueueWorker(config)):
        await inbox.next()
    first, second, callback = spans.named("process flaky")
    assert attributes(first)["queue_system.attempt"] == 1
    assert attributes(first)["queue_system.verdict"] == "retry"
    assert attributes(first)["error.type"] == "ValueError"
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "not yet")
    assert attributes(second)["queue_system.attempt"] == 2
    assert attributes(second)["queue_system.verdict"] == "complete"
    assert "error.type" not in attributes(second)
    assert attributes(callback)["queue_system.phase"] == "on_success"
    assert {tuple(links(span)) for span in (first, second, callback)} == {(id_of(spans.one("send flaky")),)}


async def test_a_failure_for_good_and_its_callback_are_spans(
    queue: QueueManager, config: QueueConfig, spans: Spans, inbox: Inbox
) -> None:
    queue.enqueue({"n": 1}, hang, retry_config=ONCE, timeout=0.01, on_failure=inbox.put)
    async with running(QueueWorker(config)):
        await inbox.next()
    failed, callback = spans.named("process hang")
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes(failed)["error.type"] == "TimeoutError"
    assert attributes(failed)["queue_system.verdict"] == "fail"
    assert "queue_system.phase" not in attributes(failed)
    assert attributes(callback)["queue_system.phase"] == "on_failure"
    assert callback.status.status_code is StatusCode.UNSET


async def test_a_log_line_of_an_attempt_is_written_within_its_span(make_config: MakeConfig) -> None:
    spans, written_in = Spans(), []

    class SpanLogger(LineLogger):
        def error(self, message: str, **fields: Any) -> None:
            if message == "operation failed":
                written_in.append(pair(trace.get_current_span().get_span_context()))

    def fail(entity: Any) -> None:
        raise ValueError("boom")

    config = make_config(logger=SpanLogger())
    tracing.enable(config, tracer_provider=spans.provider)
    QueueManager(config).enqueue({"n": 1}, fail, retry_config=ONCE)
    async with running(QueueWorker(config)):
        await eventually(lambda: spans.named("process fail"))
    assert written_in == [id_of(spans.one("process fail"))]


async def test_what_cannot_be_run_is_a_span_with_the_reason(
    queue: QueueManager, config: QueueConfig, spans: Spans
) -> None:
    queue.enqueue({"n": 1}, "no_such_module.work")
    async with running(QueueWorker(config)):
        await eventually(lambda: spans.named("process work"))
    span = spans.one("process work")
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "UnresolvableNameError"
    assert attributes(span)["queue_system.verdict"] == "reject"


def test_an_attempt_that_a_stop_interrupts_is_no_error(config: QueueConfig, spans: Spans) -> None:
    assert config.tracing is not None
    attempt = config.tracing.processing(b"low:work", "an-id", Operation(processor="work"))
    attempt.end(Interrupted(), Release())
    span = spans.one("process work")
    assert attributes(span)["queue_system.verdict"] == "release"
    assert span.status.status_code is StatusCode.UNSET


async def test_a_batch_is_one_send_span_that_every_process_span_links_to(
    queue: QueueManager, config: QueueConfig, spans: Spans, inbox: Inbox
) -> None:
    answers = await queue.aenqueue_batch([{"n": n} for n in range(3)], inbox.put, queue_name="numbers")
    queue.enqueue_batch([], inbox.put, queue_name="numbers")
    async with running(QueueWorker(config)):
        await inbox.take(3)
    sent, processed = spans.one("send numbers"), spans.named("process numbers")
    assert attributes(sent)["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in attributes(sent)
    assert {attributes(span)["messaging.message.id"] for span in processed} == {a["operation_id"] for a in answers}
    assert [links(span) for span in processed] == [[id_of(sent)]] * 3


async def test_a_send_span_names_the_operation_that_holds_the_deduplication_key(
    queue: QueueManager, spans: Spans
) -> None:
    first = queue.enqueue({"n": 1}, "m.work", deduplication_key="k")
    again = queue.enqueue({"n": 2}, "m.work", deduplication_key="k")
    assert again["status"] == "duplicate"
    named = [attributes(span)["messaging.message.id"] for span in spans.named("send work")]
    assert named == [first["operation_id"]] * 2


async def test_an_enqueue_that_fails_is_a_span_with_its_error(
    start_server: StartServer, make_config: MakeConfig
) -> None:
    own, spans = start_server(), Spans()
    config = make_config(redis_url=own.url, max_connection_retries=0)
    tracing.enable(config, tracer_provider=spans.provider)
    queue = QueueManager(config)
    queue.enqueue({"n": 1}, "m.work")
    own.kill()
    with pytest.raises(ServerUnreachableError):
        queue.enqueue({"n": 1}, "m.work")
    with pytest.raises(InvalidInputError):
        await queue.aenqueue({"n": object()}, "m.work")
    _, unreachable, invalid = spans.named("send work")
    assert attributes(unreachable)["error.type"] == "ServerUnreachableError"
    assert attributes(unreachable)["server.address"] == str(own.socket_path)
    assert attributes(invalid)["error.type"] == "UnserializableError"
    assert unreachable.status.status_code is invalid.status.status_code is StatusCode.ERROR


async def test_an_enqueue_that_is_cancelled_is_a_span_that_says_so(start_server: StartServer) -> None:
    own, spans = start_server(), Spans()
    config = QueueConfig(redis_url=own.url)
    tracing.enable(config, tracer_provider=spans.provider)
    queue = QueueManager(config)
    with frozen(own):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await queue.aenqueue({"n": 1}, "m.work")
        await eventually(lambda: spans.named("send work"))
    assert attributes(spans.one("send work"))["error.type"] == "CancelledError"


@pytest.mark.parametrize("asked", [True, False])
async def test_the_item_carries_the_context_and_the_baggage_reaches_the_processor_where_it_is_asked_for(
    config: QueueConfig, spans: Spans, client: redis.Redis, prefix: str, inbox: Inbox, asked: bool
) -> None:
    """Else anybody's baggage would go on to whatever the processor calls."""
    queue = QueueManager(config)
    if asked:
        tracing.enable(config, baggage=True, tracer_provider=spans.provider)

    def work(entity: Any) -> None:
        inbox.put(baggage.get_baggage("tenant"))

    token = context.attach(baggage.set_baggage("tenant", "a b"))
    try:
        queue.enqueue({"n": 1}, work)
    finally:
        context.detach(token)
    item = waiting_item(client, prefix, "normal:work")
    sent = spans.one("send work")
    assert sent.context is not None
    assert item["traceparent"] == f"00-{id_of(sent)[0]:032x}-{id_of(sent)[1]:016x}-{sent.context.trace_flags:02x}"
    assert item.get("baggage") == ("tenant=a+b" if asked else None)
    assert "tracestate" not in item
    async with running(QueueWorker(config)):
        assert await inbox.next() == ("a b" if asked else None)
        foreign = {**item, "operation_id": "foreign", "nonce": "", "baggage": "tenant=eve"}
        client.lpush(f"{prefix}normal:work", json.dumps(foreign))
        assert await inbox.next() == ("eve" if asked else None)


async def test_what_a_span_says_is_bounded_and_without_passwords(
    config: QueueConfig, spans: Spans, client: redis.Redis
) -> None:
    """A foreign item may name anything, and a processor may raise anything."""

    def work(entity: Any) -> None:
        raise type("E" * 5000, (Exception,), {})(f"redis://u:canary@h {'x' * 100_000}")

    config.register_callback(work, "w" * 50_000)
    item = {"processor": "w" * 50_000, "max_attempts": 1, "traceparent": "y" * 100_000}
    push(client, config, json.dumps(item), json.dumps({**item, "processor": "z" * 50_000}), name="work")
    async with running(QueueWorker(config)):
        await eventually(lambda: len(spans.named("process work")) == 2)
    for span in spans.named("process work"):
        assert all(len(str(value)) <= 256 for value in attributes(span).values())
        assert len(span.status.description or "") <= 1000
        assert all(len(str(value)) <= 8192 for event in span.events for value in (event.attributes or {}).values())
        assert "canary" not in span.to_json()
    (told,) = [span for span in spans.named("process work") if "EEE" in str(attributes(span)["error.type"])]
    assert "redis://u:***@h" in (told.status.description or "")
    (event,) = told.events
    assert event.name == "exception"
    assert "in work\n" in str((event.attributes or {})["exception.stacktrace"])


async def test_a_signed_item_carries_its_context(make_config: MakeConfig, inbox: Inbox) -> None:
    spans, config = Spans(), make_config(signing_keys={"k": "0123456789abcdef"})
    tracing.enable(config, tracer_provider=spans.provider)
    QueueManager(config).enqueue({"n": 1}, inbox.put, queue_name="signed")
    async with running(QueueWorker(config)):
        await inbox.next()
    assert links(spans.one("process signed")) == [id_of(spans.one("send signed"))]


@pytest.mark.parametrize(
    "members",
    [
        {"traceparent": 5},
        {"traceparent": {"a": [1]}, "tracestate": [], "baggage": True},
        {"traceparent": "00-0-0-00"},
        {"traceparent": "x" * 9000, "baggage": "=" * 9000},
        {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "tracestate": "=,=,,x", "baggage": ",=;%zz=%,\x00"},
    ],
)
async def test_an_item_runs_whatever_its_context_says(
    config: QueueConfig, spans: Spans, client: redis.Redis, inbox: Inbox, members: dict[str, Any]
) -> None:
    config.register_callback(inbox.put, "work")
    push(client, config, json.dumps({"entity": 7, "processor": "work"} | members), name="work")
    async with running(QueueWorker(config)):
        assert await inbox.next() == 7
    assert len(links(spans.one("process work"))) == (len(str(members["traceparent"])) == 55)


async def test_a_foreign_context_is_linked_with_its_state(
    config: QueueConfig, spans: Spans, client: redis.Redis, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, "work")
    item = {"processor": "work", "traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "vendor=x"}
    push(client, config, json.dumps(item), name="work")
    async with running(QueueWorker(config)):
        await inbox.next()
    (link,) = spans.one("process work").links
    assert pair(link.context) == (int("1" * 32, 16), int("2" * 16, 16))
    assert link.context.trace_state["vendor"] == "x"


async def test_without_traces_an_item_has_no_member_for_them(
    queue: QueueManager, client: redis.Redis, prefix: str
) -> None:
    with trace.use_span(trace.NonRecordingSpan(SpanContext(1, 2, is_remote=False))):
        queue.enqueue({"n": 1}, "m.work")
    assert not {"traceparent", "tracestate", "baggage"} & waiting_item(client, prefix, "normal:work").keys()


def test_the_package_leaves_opentelemetry_alone() -> None:
    """Redis-py by itself loads the part for metrics where it is installed; `queue_system` adds nothing to that."""
    program = """
import sys
import redis.asyncio
loaded = set(sys.modules)
import queue_system
print(sorted(name for name in sys.modules.keys() - loaded if "telemetry" in name or name == "queue_system.tracing"))
"""
    assert outcome(program).stdout.strip() == "[]"


def test_without_the_extra_the_error_says_how_to_get_it() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None; import queue_system; import queue_system.tracing"
    ended = outcome(program)
    assert (
        ended.stderr.splitlines()[-1]
        == "ImportError: traces need OpenTelemetry: pip install 'redis-queue-system[otel]'"
    )


def outcome(program: str) -> subprocess.CompletedProcess[str]:
    """What a Python program of its own came to."""
    return subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("named_in", [SRC / "queue_system/tracing.py", ROOT / "docs/tracing.md"], ids=["code", "docs"])
def test_every_attribute_is_one_of_the_conventions_or_ours(named_in: Any) -> None:
    known = {
        value
        for module in (messaging_attributes, error_attributes, server_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    text = named_in.read_text(encoding="utf-8")
    named = set(re.findall(r"[\"`]((?:messaging|error|server)\.[a-z_.]+)[\"`]", text))
    assert len(named) >= 9
    assert named <= known
