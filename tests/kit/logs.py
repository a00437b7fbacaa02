"""A logger that keeps its lines, and how a log is read for what it should not hold. Never writes a line anywhere."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_TOLD = re.compile(
    r"(operation (?:failed|rejected) [^\n]*error_type=(\w+)[^\n]*\n)(?: [^\n]*\n)*? +(?:[\w.]+\.)?\2\b[^\n]*\n"
)


def without_told_tracebacks(log: str) -> str:
    """Return a log without the tracebacks of operations that failed: what is left would be a crash of ours."""
    return _TOLD.sub(r"\1", log)


class Line(NamedTuple):
    level: str
    message: str
    fields: dict[str, Any]


class LineLogger:
    """The least that may serve as `logger`: four methods of a message and fields."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def debug(self, message: str, **fields: Any) -> None:
        self.lines.append(Line("debug", message, fields))

    def info(self, message: str, **fields: Any) -> None:
        self.lines.append(Line("info", message, fields))

    def warning(self, message: str, **fields: Any) -> None:
        self.lines.append(Line("warning", message, fields))

    def error(self, message: str, **fields: Any) -> None:
        self.lines.append(Line("error", message, fields))

    def of(self, message: str) -> list[dict[str, Any]]:
        """The fields of all lines with that message."""
        return [line.fields for line in self.lines if line.message == message]

    def values(self, metric_name: str) -> list[Any]:
        named = self.of("Queue metric update")
        return [fields["metric_value"] for fields in named if fields["metric_name"] == metric_name]
