"""Ends this process in time, whatever still runs in it. Never waits for an event loop or a thread of an application."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from queue_system.metrics import StructuredLogger
from queue_system.worker import QueueWorker

BLOCKED_S: Final = 5.0
"""How much longer than the grace time an orderly end may take before the event loop counts as blocked."""
LINGER_S: Final = 3.0
"""How long the event loop and the interpreter may take to end when the worker has left."""
_HAND_BACK_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.25


class Leaving:
    """Watches from a thread that this process leaves within its limits, and ends it if it does not."""

    def __init__(self, asked: Callable[[], bool], grace_s: float, code: int) -> None:
        """`asked` tells whether the process has to leave; `code` is its exit code if that does not end in time."""
        self._asked = asked
        self._grace_s = grace_s
        self._code = code
        self._worker: QueueWorker | None = None
        self._left: int | None = None

    def watch(self, worker: QueueWorker) -> None:
        """Begin to watch."""
        self._worker = worker
        threading.Thread(target=self._watch, name="queue-system-leaving", daemon=True).start()

    def left(self, code: int) -> None:
        """Learn that the worker has signed off, and the exit code that the process is to have."""
        self._left = code

    def _watch(self) -> None:
        if self._wait_until(self._asked, None) and not self._wait_until(self._has_left, self._grace_s + BLOCKED_S):
            self._hand_back()
            self._end(self._code, "the event loop is blocked: what it runs is handed back, and the process ends")
        self._wait_until(self._has_left, None)
        time.sleep(LINGER_S)  # mostly, the process has ended long before
        self._end(self._left or 0, "the worker has left; threads or tasks of the application run on, and are ended")

    def _has_left(self) -> bool:
        return self._left is not None

    def _wait_until(self, holds: Callable[[], bool], longest_s: float | None) -> bool:
        """Wait for a condition, or for the worker's end; tell whether the condition holds."""
        until = float("inf") if longest_s is None else time.monotonic() + longest_s
        while not holds():
            if self._has_left() or time.monotonic() >= until:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def _hand_back(self) -> None:
        stream = None if self._worker is None else self._worker._stream  # noqa: SLF001 - there is no other reader
        if stream is not None:
            releasing = threading.Thread(target=stream.leave_blocked, daemon=True)
            with suppress(RuntimeError, MemoryError):  # it can begin no thread
                releasing.start()
                releasing.join(_HAND_BACK_S)

    def _end(self, code: int, why: str) -> None:
        try:
            threads = [thread.name for thread in threading.enumerate() if not thread.daemon]
            log = StructuredLogger.wrap() if self._worker is None else self._worker.config.log
            log.warning(why, exit_code=code, threads=", ".join(threads[:10]))
            streams = (*logging.getLogger().handlers, sys.stdout, sys.stderr)
            for stream in streams:
                with suppress(Exception):
                    stream.flush()
        finally:  # whatever logging does, as where memory is at its limit
            os._exit(code)
