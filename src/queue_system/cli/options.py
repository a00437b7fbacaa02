"""Options that several commands share, and how their values are read. Never holds a default that a command decides."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Annotated, Any, Final, TypeAlias

import typer

_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)?\Z", re.ASCII)


class Priority(StrEnum):
    """The priorities, in the order in which they are served."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def duration(text: str | float) -> float:
    """Read a length of time: a number of seconds, or one with ms, s, m, h or d after it. Raises BadParameter."""
    match = _DURATION.match(str(text))
    if match is None:
        raise typer.BadParameter(f"{text!r} is no length of time; use seconds, or 500ms, 30s, 5m, 2h, 7d")
    return float(match[1]) * _UNITS[match[2] or ""]


def json_value(text: str | bytes) -> Any:
    """Read a JSON document. Raises BadParameter."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"it is no JSON document: {error}; quote it for the shell: '{{\"id\": 1}}'") from error


def names(text: str) -> tuple[str, ...]:
    """Read names between commas."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AllowedModules: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        envvar="QUEUE_SYSTEM_ALLOWED_MODULES",
        help="The modules whose functions names from Redis may lead to, between commas. Default: the configuration's.",
    ),
]
