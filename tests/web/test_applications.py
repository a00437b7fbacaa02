"""What an application gets from `queue_system.web`: a queue, a worker if asked, answers for errors, event streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import uvicorn
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from queue_system import (
    AccessDeniedError,
    CircuitOpenError,
    InvalidInputError,
    ItemTooLargeError,
    QueueConfig,
    QueueManager,
    QueueWorker,
    ServerFullError,
    UnconfirmedError,
    UnknownOperationError,
    WaitTimeoutError,
    tracing,
    web,
)
from tests.kit.servers import StartServer
from tests.kit.source import SRC
from tests.kit.waiting import eventually

Handler = Callable[[Request], Awaitable[Response]]


@contextlib.asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an application by uvicorn on a free port, and give a client for it."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or serving.done(), "the application serves")
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        server.should_exit = True
        await serving


def application(config: QueueConfig, handler: Handler, worker: QueueWorker | None = None) -> Starlette:
    return Starlette(
        routes=[Route("/{name}", handler, methods=["GET", "POST"])],
        lifespan=web.lifespan(config, worker=worker),
        exception_handlers=web.exception_handlers,
    )


async def test_handlers_find_the_queue_and_a_worker_lives_with_the_application(config: QueueConfig) -> None:
    async def double(entity: Any) -> Any:
        return 2 * entity

    async def compute(request: Request) -> Response:
        queue: QueueManager = request.state.queue
        assert await web.queue(request) is queue
        answer = await queue.aenqueue(await request.json(), double)
        record = await queue.await_for(answer["operation_id"], timeout=10)
        return JSONResponse(web.operation_json(record))

    worker = QueueWorker(config)
    async with served(application(config, compute, worker)) as client:
        assert worker.running
        answer = await client.post("/compute", json=21)
        assert (answer.json()["result"], answer.json()["finished"]) == (42, True)
    assert not worker.running


async def test_a_trace_leads_from_the_request_to_what_the_processor_does(config: QueueConfig) -> None:
    exporter, provider, ran = InMemorySpanExporter(), TracerProvider(), asyncio.Event()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.enable(config, tracer_provider=provider)
    tracer = provider.get_tracer("tests")

    async def confirm(entity: Any) -> None:
        with tracer.start_as_current_span("SELECT orders", kind=SpanKind.CLIENT):
            ran.set()

    async def order(request: Request) -> Response:
        return JSONResponse(await request.state.queue.aenqueue(await request.json(), confirm), 202)

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        """What an instrumentation of the web framework does."""
        if scope["type"] != "http":
            return await app(scope, receive, send)
        with tracer.start_as_current_span(f"{scope['method']} {scope['path']}", kind=SpanKind.SERVER):
            return await app(scope, receive, send)

    app = application(config, order, QueueWorker(config))
    async with served(traced) as client:
        answer = await client.post("/orders", json={"order": 7})
        await ran.wait()

    spans = {span.name: span for span in exporter.get_finished_spans()}
    request, sent, processed, inner = (
        spans[name] for name in ("POST /orders", "send confirm", "process confirm", "SELECT orders")
    )
    assert [span.kind for span in (request, sent, processed, inner)] == [
        SpanKind.SERVER,
        SpanKind.PRODUCER,
        SpanKind.CONSUMER,
        SpanKind.CLIENT,
    ]
    assert sent.parent == request.context
    assert [link.context.span_id for link in processed.links] == [_context(sent).span_id]
    assert [link.context.trace_id for link in processed.links] == [_context(request).trace_id]
    assert inner.parent == processed.context
    for span in (sent, processed):
        assert (span.attributes or {})["messaging.message.id"] == answer.json()["operation_id"]
        assert (span.attributes or {})["messaging.destination.name"] == "confirm"


def _context(span: Any) -> trace.SpanContext:
    context: trace.SpanContext = span.context
    return context


@pytest.mark.parametrize(
    "error, status, shown",
    [
        (InvalidInputError("priority", "'urgent' is unknown"), 422, "priority: 'urgent' is unknown"),
        (ItemTooLargeError("entity", "it has 9 bytes"), 413, "entity: it has 9 bytes"),
        (UnknownOperationError("x"), 404, str(UnknownOperationError("x"))),
        (WaitTimeoutError("operation 'x' is running after 1 s"), 504, "operation 'x' is running after 1 s"),
        (ServerFullError("10.0.0.7: OOM"), 503, "the queue is not available"),
        (UnconfirmedError("fsync", ["x"], 1.0), 503, "the queue is not available"),
        (CircuitOpenError("stripe", 12.3), 503, "the queue is not available"),
        (AccessDeniedError("10.0.0.7: NOAUTH"), 500, "the queue is not available"),
    ],
)
async def test_each_error_has_its_answer_and_none_tells_of_the_server(
    error: Exception, status: int, shown: str
) -> None:
    answer = await web.answer_error(Request({"type": "http"}), error)
    body = json.loads(bytes(answer.body))
    assert (answer.status_code, body["detail"], body["error_type"]) == (status, shown, type(error).__name__)
    assert body.get("field") == getattr(error, "field", None)
    assert ("retry-after" in answer.headers) == (status == 503)
    if isinstance(error, CircuitOpenError):
        assert answer.headers["retry-after"] == "13"


async def test_a_dead_server_is_503_with_the_time_to_try_again(start_server: StartServer) -> None:
    async def enqueue(request: Request) -> Response:
        return JSONResponse(await request.state.queue.aenqueue({"n": 1}, "m.work"))

    own = start_server()
    async with served(application(QueueConfig(redis_url=own.url), enqueue)) as client:
        assert (await client.post("/work")).status_code == 200
        own.kill()
        answers = [await client.post("/work") for _ in range(6)]
    assert {answer.status_code for answer in answers} == {503}
    kinds = [answer.json()["error_type"] for answer in answers]
    assert kinds == ["ServerUnreachableError"] * 5 + ["CircuitOpenError"]
    assert [answer.headers["retry-after"] for answer in answers] == ["5"] * 5 + ["30"]
    assert str(own.folder) not in answers[0].text


async def test_without_its_lifespan_an_application_is_told_what_it_lacks() -> None:
    with pytest.raises(RuntimeError, match=r"lifespan=queue_system.web.lifespan\(config\)"):
        await web.queue(Request({"type": "http"}))


async def test_a_stream_shows_life_while_there_is_no_news(config: QueueConfig) -> None:
    async def watch(request: Request) -> Response:
        return await web.operation_stream(request.state.queue, request.path_params["name"], heartbeat=0.01)

    queue = QueueManager(config)
    answer = queue.enqueue({"n": 1}, "m.work", delay=3600)
    async with served(application(config, watch)) as client:
        async with client.stream("GET", f"/{answer['operation_id']}") as response:
            lines = response.aiter_lines()
            first = await anext(lines)
            assert json.loads(first.removeprefix("data: "))["status"] == "delayed"
            assert [await anext(lines) for _ in range(4)] == ["", ": no news", "", ": no news"]
        unknown = await client.get("/nobody-knows-it")
    assert (unknown.status_code, unknown.json()["error_type"]) == (404, "UnknownOperationError")


async def test_the_events_of_an_operation_are_its_changes_to_the_end(config: QueueConfig) -> None:
    go_on = asyncio.Event()

    async def work(entity: Any) -> str:
        await go_on.wait()
        return "done"

    queue, worker, seen = QueueManager(config), QueueWorker(config), []
    answer = await queue.aenqueue({"n": 1}, work)
    async for record in web.operation_events(queue, answer["operation_id"]):
        seen.append(record.status)
        if record.status == "queued":
            await worker.start()
        elif record.status == "running":
            go_on.set()
    await worker.stop()
    assert seen == ["queued", "running", "succeeded"]


async def test_the_events_of_a_purged_operation_end(config: QueueConfig) -> None:
    queue, seen = QueueManager(config), []
    answer = await queue.aenqueue({"n": 1}, "m.work")
    async for record in web.operation_events(queue, answer["operation_id"], heartbeat=0.1):
        seen.append(record.status)
        await queue.apurge_queue("work")
    assert seen == ["queued"]


async def test_the_events_go_on_when_the_server_is_back(start_server: StartServer) -> None:
    own = start_server()
    config = QueueConfig(redis_url=own.url, max_connection_retries=0)
    queue = QueueManager(config)

    async def work(entity: Any) -> None:
        return None

    answer, seen = await queue.aenqueue({"n": 1}, work), []
    worker = QueueWorker(config)
    async for record in web.operation_events(queue, answer["operation_id"], heartbeat=0.2):
        seen.append(record.status)
        if record.status == "queued":
            own.kill()
            asyncio.get_running_loop().call_later(0.3, own.start)
            asyncio.get_running_loop().call_later(0.3, lambda: asyncio.ensure_future(worker.start()))
    await worker.stop()
    assert seen[-1] == "succeeded"


def test_the_package_loads_no_web_framework_and_tells_which_extra_brings_it() -> None:
    program = """
import sys
import queue_system
print(sorted({"starlette", "fastapi", "uvicorn", "queue_system.web"} & sys.modules.keys()))
sys.modules["starlette"] = None
import queue_system.web
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False
    )
    assert ended.stdout.strip() == "[]"
    assert (
        ended.stderr.splitlines()[-1]
        == "ImportError: web applications need Starlette: pip install 'redis-queue-system[web]'"
    )
