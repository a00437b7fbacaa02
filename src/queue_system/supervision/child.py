"""The child's side of the supervisor: one worker, which leaves when its supervisor is gone."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

import msgspec

from queue_system import logs
from queue_system.errors import InvalidInputError, QueueSystemError
from queue_system.execution.runners.children import Child
from queue_system.monitoring.health import WorkerHealth
from queue_system.supervision.serving import DONE, FAILED, REFUSED, Serving, run_to_end
from queue_system.supervision.settings import WorkerSettings
from queue_system.supervision.signals import Departure
from queue_system.supervision.systemd import Notifier
from queue_system.supervision.targets import explain


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a child reports to its supervisor: its health, or why it cannot run."""

    health: dict[str, Any] | None = None
    problem: str = ""


_encode: Final = msgspec.json.Encoder().encode


def main(descriptor: int) -> None:
    """Read the settings from a socket, run a worker, and report on it over the socket until that closes."""
    channel = Child.adopt(descriptor)
    departure = Departure(patient=True)
    departure.take_signals()
    with channel.makefile("rb") as lines:
        line = lines.readline()
    sys.exit(_work(channel, line, departure) if line else DONE)


def _work(channel: socket.socket, line: bytes, departure: Departure) -> int:
    channel.settimeout(0)

    def tell(report: Report) -> None:
        with suppress(OSError):  # the supervisor is gone, or so slow that it can do without
            channel.send(_encode(report) + b"\n")

    def tell_health(health: WorkerHealth) -> None:
        tell(Report(health=asdict(health)))

    async def work() -> int:
        loop = asyncio.get_running_loop()

        def supervisor_left() -> None:
            loop.remove_reader(channel)
            departure.ask()

        loop.add_reader(channel, supervisor_left)
        return await serving.run()

    settings = msgspec.json.decode(line, type=WorkerSettings)
    logs.configure(settings.log_format, settings.log_level)
    serving = Serving(settings, departure, Notifier({}), tell_health, ends_process=True)
    try:
        return run_to_end(serving, work())
    except QueueSystemError as error:
        tell(Report(problem=explain(error, debug=settings.debug)))
        return REFUSED if isinstance(error, InvalidInputError) else FAILED
