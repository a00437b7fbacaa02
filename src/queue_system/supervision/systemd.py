"""Tells systemd how the service is. Does nothing where systemd did not ask."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

from queue_system.clock import SYSTEM_CLOCK

VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
"""The variables of a service's main process, which its children must not have."""

_PATIENCE_S: Final = 0.1


class Notifier:
    """The connection to the service manager that `NOTIFY_SOCKET` names."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        period_us = environment.get("WATCHDOG_USEC", "")
        watched = (
            self._address and period_us.isdecimal() and environment.get("WATCHDOG_PID") in {None, f"{os.getpid()}"}
        )
        self.interval_s = int(period_us) / 2e6 if watched else float("inf")
        """How often `alive` wants to be called at least, in s."""
        self._told = 0.0
        self._ready = False

    def ready(self) -> None:
        """Report that the service is up. Only the first call does so."""
        if not self._ready:
            self._ready = True
            self._send("READY=1")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog, if there is one and it is time."""
        now = SYSTEM_CLOCK.monotonic()
        if now - self._told >= self.interval_s / 2:
            self._told = now
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(_PATIENCE_S)  # its queue may be full
            manager.sendto(state.encode(), address)
