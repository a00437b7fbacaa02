"""One of a supervisor's places: its child process, what that reports, and when it is started again."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Final

import msgspec

from queue_system.execution.runners.children import Child
from queue_system.monitoring.health import WorkerHealth
from queue_system.supervision.child import Report
from queue_system.supervision.serving import PULSE_S
from queue_system.supervision.settings import WorkerSettings
from queue_system.supervision.systemd import VARIABLES

FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
HEALTHY_AFTER_S: Final = 60.0
KILL_AGAIN_S: Final = 10.0
_CHUNK: Final = 1 << 16
NEVER: Final = float("inf")

_decode = msgspec.json.Decoder(Report).decode


class Place:
    """A child process, or the wait for the next one. All times are of the monotonic clock."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._line = msgspec.json.encode(asdict(settings)) + b"\n"
        self.child: Child | None = None
        self.start_at = 0.0
        """When a child is to be started, if there is none."""
        self.kill_at = NEVER
        """When the child is killed because it was asked to leave before."""
        self.ready = False
        """Whether the child has begun to take operations."""
        self.renewing = False
        """Whether the supervisor replaces the child as one of a series."""
        self.problem = ""
        """Why the child cannot run."""
        self._started_at = 0.0
        self._delay_s = 0.0
        self._heard = b""
        self._health = WorkerHealth(pid=0)
        self._heard_at = 0.0

    @property
    def pid(self) -> int:
        """The child's process id; 0 without one."""
        return 0 if self.child is None else self.child.process.pid

    @property
    def leaving(self) -> bool:
        """Whether the child was asked to leave."""
        return self.kill_at < NEVER

    def start(self) -> Child:
        """Start a child."""
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        child = self.child = Child.start("queue_system.supervision.child", environment)
        with suppress(OSError):  # it has died already
            child.channel.sendall(self._line)
        child.channel.settimeout(0)
        self._started_at = self._heard_at = time.monotonic()
        self.kill_at = NEVER
        self.ready = False
        self.problem = ""
        self._heard = b""
        self._health = WorkerHealth(child.process.pid)
        return child

    def ask_to_leave(self, within_s: float) -> None:
        """Let the child drain, and note when it will be killed. Asking again changes nothing."""
        if self.child is not None and not self.leaving:
            self.kill_at = time.monotonic() + within_s
            self.child.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the child and what it started."""
        if self.child is not None:
            self.child.signal_group(signal.SIGKILL)

    def overdue(self) -> bool:
        """Kill a child that has not left in time, and tell whether that was so."""
        if self.child is None or time.monotonic() < self.kill_at:
            return False
        self.kill()
        self.kill_at = time.monotonic() + KILL_AGAIN_S
        return True

    def listen(self) -> bool:
        """Read what the child has reported; False when it will report nothing more."""
        if self.child is None:
            return False
        try:
            while part := self.child.channel.recv(_CHUNK):
                self._heard += part
                *lines, self._heard = self._heard.split(b"\n")
                for line in lines:
                    with suppress(msgspec.DecodeError):  # a child in distress may say anything
                        self._learn(_decode(line))
        except BlockingIOError:
            return True
        except ConnectionError:
            pass
        return False

    def _learn(self, report: Report) -> None:
        if report.problem:
            self.problem = report.problem
        elif report.health is not None:
            self._health = WorkerHealth(**report.health)
            self._heard_at = time.monotonic()
            self.ready = self.ready or self._health.consuming

    def ended(self) -> int | None:
        """Return the exit code of a child that has ended, and empty the place; None while it runs."""
        if self.child is None or (code := self.child.process.poll()) is None:
            return None
        self.listen()
        self.child.channel.close()
        self.child = None
        self._health = WorkerHealth(pid=0)
        self.kill_at = NEVER
        self.ready = False
        return code

    def lived_s(self) -> float:
        """Return how long ago the last child was started."""
        return time.monotonic() - self._started_at

    def back_off(self) -> float:
        """Put off the next start by 0.5 s, doubled up to 30 s while no child lives for a minute. Return the delay."""
        again = self.lived_s() < HEALTHY_AFTER_S
        self._delay_s = min(max(2 * self._delay_s, FIRST_DELAY_S), LONGEST_DELAY_S) if again else FIRST_DELAY_S
        self.start_at = time.monotonic() + self._delay_s
        return self._delay_s

    def health(self) -> WorkerHealth:
        """Return what the child last reported, aged by the time since then. From any thread."""
        return self._health.aged(time.monotonic() - self._heard_at, PULSE_S)
