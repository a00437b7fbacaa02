"""Log lines as JSON in the Elastic Common Schema, and stderr logging for programs."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import socket
import sys
import textwrap
from datetime import UTC, datetime
from typing import Any, Final

__all__ = [
    "EVENT", "RECORD_NAMES", "JsonFormatter", "TextFormatter", "configure", "printable", "text_of", "without_passwords",
]  # fmt: skip

EVENT: Final = "queue_system_event"
"""The attribute of our records that holds their constant message; the others among their extras are its fields."""
RECORD_NAMES: Final = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", EVENT})
"""The attributes of a record that are not fields of ours."""

_ECS_VERSION: Final = "8.11.0"
_SPECIFIED: Final = ("metric_name", "metric_value")  # where the specification's queries look for them
_URL: Final = re.compile(r"://(\S*)")
_PARAMETER: Final = re.compile(r"([?&;](?:password|passwd|pwd|auth|secret|token)=)[^\s&;'\"]+", re.IGNORECASE)
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """Writes each record as one line of ASCII, so that nothing inside it can begin another.

    The times are UTC. Our own fields are members of `queue_system`, but for the specification's; what other loggers
    give as `extra=` becomes text in `labels`. An OpenTelemetry span that is current is named.
    """

    def __init__(self, service_name: str | None = None) -> None:
        super().__init__()
        self._constant = {
            "ecs.version": _ECS_VERSION,
            "service.name": service_name or os.environ.get("OTEL_SERVICE_NAME") or "queue-system",
            "host.name": socket.gethostname(),
        }

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line feed."""
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        ours = getattr(record, EVENT, None)
        fields = {name: value for name, value in vars(record).items() if name not in RECORD_NAMES}
        document: dict[str, Any] = {
            "@timestamp": stamp,
            "log.level": record.levelname.lower(),
            "message": _clean(record.getMessage() if ours is None else ours),
            "timestamp": stamp,
            "log.logger": record.name,
            "process.pid": record.process,
            **self._constant,
            **_trace_ids(),
            **_error(self, record, fields if ours is not None else {}),
        }
        if ours is None:
            labels = {name: _clean(text_of(value)) for name, value in fields.items()}
            return _line(document | {"labels": labels} if labels else document)
        document |= {name: _json_value(fields.pop(name)) for name in _SPECIFIED if name in fields}
        members = {name: _json_value(value) for name, value in fields.items()}
        return _line(document | {"queue_system": members} if members else document)


class TextFormatter(logging.Formatter):
    """Writes each record as text for people; what follows its first line is indented."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the text, without a line feed at its end."""
        return "\n    ".join(printable(line) for line in super().format(record).split("\n"))


class _Stderr(logging.StreamHandler[Any]):
    """The handler that `configure` adds."""


def configure(log_format: str = "text", level: str | int = "INFO") -> None:
    """Write what this process logs to stderr, as `"text"` or `"json"`, from `level` on.

    A second call replaces the first. Raises ValueError for an unknown format or level.
    """
    if log_format not in {"text", "json"}:
        raise ValueError(f"log_format: expected 'text' or 'json', got {log_format!r:.80}")
    handler = _Stderr(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.setLevel(level.upper() if isinstance(level, str) else level)
    for old in [old for old in root.handlers if isinstance(old, _Stderr)]:
        root.removeHandler(old)
    root.addHandler(handler)


def printable(text: str) -> str:
    """Escape line breaks, control characters, marks of direction and all else that shows no character of its own."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in text])


def text_of(value: object) -> str:
    """Return a value's text, whatever its `__str__` does."""
    with contextlib.suppress(Exception):
        return str(value)
    return f"<unprintable {type(value).__name__}>"


def without_passwords(text: str) -> str:
    """Replace passwords in URLs by `***`."""
    if "://" not in text:
        return text
    return _URL.sub(_without_password, text)


def _without_password(url: re.Match[str]) -> str:
    credentials, at, place = url[1].rpartition("@")
    user, colon, _ = credentials.partition(":")
    if at and colon:
        return f"://{user}:***@{_PARAMETER.sub(_hide, place)}"
    return f"://{_PARAMETER.sub(_hide, url[1])}"


def _hide(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}***"


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _clean(text: str) -> str:
    """Replace lone surrogates, which not every reader of JSON accepts."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _clean(text_of(value))


def _error(formatter: logging.Formatter, record: logging.LogRecord, fields: dict[str, Any]) -> dict[str, str]:
    """Return the members that describe an error; those among the fields are taken out."""
    told = {"error.message": fields.pop("error", None), "error.type": fields.pop("error_type", None)}
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        told = {"error.message": told["error.message"] or text_of(error), "error.type": type(error).__name__}
        told["error.stack_trace"] = textwrap.dedent(record.exc_text or formatter.formatException(record.exc_info))
    return {name: _clean(text_of(value)) for name, value in told.items() if value is not None}


def _trace_ids() -> dict[str, str]:
    """Return the ids of OpenTelemetry's current span, if somebody has imported it and a span is current."""
    current_span = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if current_span is None:
        return {}
    context = current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace.id": format(context.trace_id, "032x"), "span.id": format(context.span_id, "016x")}
