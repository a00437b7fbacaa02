"""OpenTelemetry spans of what is enqueued and executed.

The names are those of OpenTelemetry's conventions for messaging; docs/tracing.md lists what each span says.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextvars import Token
from typing import Any, Final, TypeVar

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise ImportError("traces need OpenTelemetry: pip install 'redis-queue-system[otel]'") from missing

from queue_system.broker.connection import Endpoint
from queue_system.config import QueueConfig
from queue_system.logs import without_passwords
from queue_system.model.operation import Operation
from queue_system.model.verdict import Fail, Outcome, Raised, Reject, Retry, Unprocessable, Verdict
from queue_system.tracebacks import describe_error
from queue_system.validation import check_instance

R = TypeVar("R")

_MEMBERS: Final = ("traceparent", "tracestate", "baggage")
_LONGEST_DESCRIPTION: Final = 1000
_LONGEST_NAME: Final = 256
_LONGEST_MEMBER: Final = 8192  # what the W3C asks of baggage, the largest of them
_trace_context = TraceContextTextMapPropagator()
_baggage = W3CBaggagePropagator()


def enable(
    config: QueueConfig, *, parent: bool = False, baggage: bool = False, tracer_provider: TracerProvider | None = None
) -> None:
    """Trace what the managers and workers of a configuration do from now on.

    Args:
        config: the one that they share. `config.tracing = None` ends it.
        parent: make each execution's span a child of the one that enqueued it, in one trace. Default: it begins a trace
            of its own. Either way it links to the one that enqueued it.
        baggage: let items carry the baggage of who enqueues them to the processor. It is readable in Redis, and goes on
            to whatever the processor calls; anybody who can write items can write it.
        tracer_provider: default: the application's global one.
    """
    check_instance("config", config, QueueConfig)
    tracer = trace.get_tracer("queue_system", tracer_provider=tracer_provider)
    config.tracing = _Spans(config, tracer, parent=parent, baggage=baggage)


class _Spans:
    """Makes the spans of one configuration. Thread-safe."""

    def __init__(self, config: QueueConfig, tracer: trace.Tracer, *, parent: bool, baggage: bool) -> None:
        self._config = config
        self._tracer = tracer
        self._parent = parent
        self._baggage = baggage
        self._endpoint: Endpoint | None = None
        self._server: dict[str, str | int] = {}

    def sending(
        self, flow: Generator[Any, Any, R], operation: Operation, queue: str, count: int | None = None
    ) -> Generator[Any, Any, R]:
        attributes = _attributes("send", queue)
        if count is not None:
            attributes["messaging.batch.message_count"] = count
        name = f"send {attributes['messaging.destination.name']}"
        span = self._tracer.start_span(name, kind=SpanKind.PRODUCER, attributes=attributes)
        _carry(operation, trace.set_span_in_context(span), baggage=self._baggage)
        try:
            answer = yield from flow
            span.set_attributes(self._server_attributes())
            if isinstance(answer, dict):
                span.set_attribute("messaging.message.id", answer["operation_id"])
        except GeneratorExit:
            _fail(span, "CancelledError", "cancelled; whether it was enqueued is unknown")
            raise
        except Exception as error:
            span.set_attributes(self._server)
            _fail(span, type(error).__name__, without_passwords(describe_error(error)))
            raise
        finally:
            span.end()
        return answer

    def processing(self, queue: bytes, operation_id: str, operation: Operation) -> _Attempt:
        context, sent = _carried(operation, baggage=self._baggage)
        origin = trace.get_current_span(sent).get_span_context()
        attributes = _attributes("process", queue.decode())
        attributes |= self._server_attributes()
        attributes["messaging.message.id"] = operation_id
        attributes["queue_system.processor"] = operation.processor[:_LONGEST_NAME]
        attributes["queue_system.attempt"] = operation.attempts + 1
        if operation.phase:
            attributes["queue_system.phase"] = operation.phase[:_LONGEST_NAME]
        span = self._tracer.start_span(
            f"process {attributes['messaging.destination.name']}",
            context=sent if self._parent else context,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[Link(origin)] if origin.is_valid else [],
        )
        return _Attempt(span, contexts.attach(trace.set_span_in_context(span, context)))

    def _server_attributes(self) -> dict[str, str | int]:
        """Return where the server is. Only for a configuration that has reached it: nothing is opened here."""
        endpoint = self._config.shard.endpoint()
        if endpoint is not self._endpoint:
            self._endpoint = endpoint
            self._server = _address(endpoint)
        return self._server


class _Attempt:
    """The span of one execution, current until its end."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span, token: Token[Context]) -> None:
        self._span = span
        self._token = token

    def end(self, outcome: Outcome, verdict: Verdict) -> None:
        contexts.detach(self._token)
        self._span.set_attribute("queue_system.verdict", type(verdict).__name__.lower())
        if isinstance(outcome, Raised | Unprocessable):
            _fail(self._span, outcome.error_type, outcome.error)
            if isinstance(verdict, Retry | Fail | Reject) and verdict.trace is not None and verdict.trace.text:
                where = {"exception.stacktrace": verdict.trace.text}
                self._span.add_event("exception", {**_described(outcome.error_type, outcome.error), **where})
        self._span.end()


def _attributes(operation: str, queue: str) -> dict[str, Any]:
    priority, _, name = queue.partition(":")
    return {
        "messaging.system": "redis",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": name,
        "messaging.client.id": f"{socket.gethostname()}:{os.getpid()}",
        "queue_system.priority": priority,
    }


def _carry(operation: Operation, context: Context, *, baggage: bool) -> None:
    """Let an operation's item carry a context."""
    members: dict[str, str] = {}
    _trace_context.inject(members, context)
    if baggage:
        _baggage.inject(members, context)
    for name, value in members.items():
        setattr(operation, name, value)


def _carried(operation: Operation, *, baggage: bool) -> tuple[Context, Context]:
    """Return the context that an item carries, without its span and with it. What makes no sense counts as absent."""
    found = {name: getattr(operation, name) for name in _MEMBERS}
    members = {name: text for name, text in found.items() if isinstance(text, str) and len(text) <= _LONGEST_MEMBER}
    empty = Context()
    try:
        context = _baggage.extract(members, empty) if baggage else empty
        return context, _trace_context.extract(members, context)
    except Exception:  # noqa: BLE001 - whatever a foreign item says, its operation runs
        return empty, empty


def _fail(span: Span, error_type: str, error: str) -> None:
    span.set_attribute("error.type", error_type[:_LONGEST_NAME])
    span.set_status(Status(StatusCode.ERROR, error[:_LONGEST_DESCRIPTION]))


def _described(error_type: str, error: str) -> dict[str, str]:
    return {"exception.type": error_type[:_LONGEST_NAME], "exception.message": error[:_LONGEST_DESCRIPTION]}


def _address(endpoint: Endpoint) -> dict[str, str | int]:
    settings = endpoint.pool.connection_kwargs
    if path := settings.get("path"):
        return {"server.address": path}
    if "host" in settings:
        return {"server.address": settings["host"], "server.port": int(settings.get("port", 6379))}
    return {"server.address": endpoint.address}
