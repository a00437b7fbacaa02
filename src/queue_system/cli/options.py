"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, TypeAlias

import typer

from queue_system.validation import shown, whole_limits

_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WHOLE: Final = re.compile(r"-?\d{1,18}\Z", re.ASCII)
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)?\Z", re.ASCII)


class Priority(StrEnum):
    """The priorities, in the order in which they are served."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Durability(StrEnum):
    """How safe an operation is when its id is printed."""

    FAST = "fast"
    FSYNC = "fsync"
    REPLICATED = "replicated"


class LogFormat(StrEnum):
    """The formats of `queue_system.logs`."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The levels of the standard library's logging."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def duration(text: str | float) -> float:
    """Read a length of time: a number of seconds, or one with ms, s, m, h or d after it. Raises BadParameter."""
    match = _DURATION.match(str(text))
    if match is None:
        raise typer.BadParameter(
            f"expected a length of time, got {shown(text)}; use seconds, or 500ms, 30s, 5m, 2h, 7d"
        )
    return float(match[1]) * _UNITS[match[2] or ""]


def durations(text: str | Sequence[float]) -> list[float]:
    """Read lengths of time between commas. Raises BadParameter."""
    return [duration(part.strip()) for part in text.split(",")] if isinstance(text, str) else list(text)


def whole(least: int, most: int | None = None) -> Callable[[str | int], int]:
    """Return what reads a whole number within these limits. It raises BadParameter."""
    limits = whole_limits(least, most)

    def read(text: str | int) -> int:
        found = _WHOLE.match(str(text).strip())
        if found is None or not least <= int(found[0]) <= (int(found[0]) if most is None else most):
            raise typer.BadParameter(f"expected a whole number {limits}, got {shown(text)}")
        return int(found[0])

    return read


def json_value(text: str | bytes) -> Any:
    """Read a JSON document. Raises BadParameter."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(
            f"entity: expected a JSON document, got other text ({error}); quote it for the shell: '{{\"id\": 1}}'"
        ) from error


def names(text: str) -> tuple[str, ...]:
    """Read names between commas."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
LogFormatOption: TypeAlias = Annotated[
    LogFormat,
    typer.Option(envvar="QUEUE_SYSTEM_LOG_FORMAT", metavar="FORMAT", help="The format of log lines: text or json."),
]
LogLevelOption: TypeAlias = Annotated[
    LogLevel,
    typer.Option(
        envvar="QUEUE_SYSTEM_LOG_LEVEL",
        case_sensitive=False,
        metavar="LEVEL",
        help="The lowest level that is logged: debug, info, warning or error.",
    ),
]
AllowedModules: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        envvar="QUEUE_SYSTEM_ALLOWED_MODULES",
        help="The modules whose functions may be run by name, separated by commas. Default: the configuration's.",
    ),
]
