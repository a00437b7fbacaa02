"""The form of a check of `doctor`: what it looks at, what it found, and what happens when access is denied."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

from queue_system.broker.protocol import Command
from queue_system.broker.server_check import Finding, findings, read_server
from queue_system.client.flow import Flow
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError, ServerError, ServerUnreachableError
from queue_system.inspection.reading import read
from queue_system.inspection.workers import entries_flow
from queue_system.manager import QueueManager

T = TypeVar("T")


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found: a sentence, and the way out where one is needed."""

    level: Level
    sentence: str
    advice: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """The incarnations' entries at one moment of this process's monotonic clock."""

    at: float
    entries: Mapping[str, bytes]


class Examination:
    """What the checks share: the server's own words, read once, and a first look at the workers."""

    def __init__(self, config: QueueConfig, role: str | None = None) -> None:
        self.config = config
        self.shard = config.shard
        self.role = role
        self.allowed_modules = config.registry.application.allowed_modules

    def run(self, command: Command[T]) -> T:
        """Run a command. Raises ServerError."""
        return self.shard.transport.run(command)

    def read(self, flow: Flow[T]) -> T:
        """Run a flow of reads. Raises ServerError."""
        return read(self.shard, flow, retries=None)

    @cached_property
    def told(self) -> tuple[dict[str, str], dict[str, str]]:
        """INFO's fields and CONFIG's settings, as far as the server shows them."""
        return read_server(self.shard.transport.run)

    @property
    def info(self) -> Mapping[str, str]:
        """INFO's fields."""
        return self.told[0]

    @property
    def settings(self) -> Mapping[str, str]:
        """CONFIG's settings."""
        return self.told[1]

    def finding(self, kind: str) -> Finding | None:
        """Return the danger of one kind that the server's version and settings hold, if they do."""
        return next((found for found in findings(*self.told) if found.kind == kind), None)

    @cached_property
    def status(self) -> dict[str, Any]:
        """The answer of `get_queue_status`."""
        return QueueManager(self.config).get_queue_status()

    @cached_property
    def first_look(self) -> Look:
        """The incarnations when the examination began."""
        return self.look()

    def look(self) -> Look:
        """Read the incarnations now."""
        entries = self.read(entries_flow(self.shard))
        return Look(time.monotonic(), entries)


Check: TypeAlias = Callable[[Examination], Result]


def examine(examination: Examination, checks: Sequence[tuple[str, Check]]) -> Iterator[tuple[str, Result]]:
    """Run checks one after the other. Raises ServerUnreachableError; what else fails is the check's result."""
    for name, check in checks:
        try:
            result = check(examination)
        except ServerUnreachableError:
            raise
        except AccessDeniedError as error:
            result = Result(
                Level.SKIP, f"this user may not read it: {error.__cause__ or error}", "run doctor as another user"
            )
        except ServerError as error:
            result = Result(Level.FAIL, str(error), "repair what the server names")
        yield name, result
