"""Ends this process in time, whatever still runs in it."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from queue_system.clock import SYSTEM_CLOCK
from queue_system.metrics import StructuredLogger
from queue_system.worker import QueueWorker

BLOCKED_S: Final = 5.0
"""How much longer than the grace time an orderly end may take before the event loop counts as blocked."""
LINGER_S: Final = 3.0
"""How long the event loop and the interpreter may take to end when the worker has left."""
_HAND_BACK_S: Final = 2.0
_LAST_WORD_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.25
_exit: Final = os._exit


class _Helper:
    """A thread for one call that may hang, begun early: later, the process may be unable to begin one."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._work = work
        self._asked = threading.Lock()
        self._done = threading.Lock()
        for lock in (self._asked, self._done):
            lock.acquire()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def help(self, longest_s: float) -> None:
        """Do the work, and wait for it for a limited time."""
        self._asked.release()
        self._done.acquire(timeout=longest_s)

    def _run(self) -> None:
        self._asked.acquire()
        try:
            self._work()
        finally:
            self._done.release()


class Leaving:
    """Watches from a thread that this process leaves within its limits, and ends it if it does not."""

    def __init__(self, asked: Callable[[], bool], grace_s: float, code: int) -> None:
        """`asked` says whether the process has to leave; `code` is its exit code if that does not end in time."""
        self._asked = asked
        self._grace_s = grace_s
        self._code = code
        self._worker: QueueWorker | None = None
        self._left: int | None = None
        self._why = ""
        self._pause = threading.Lock()
        self._pause.acquire()

    def watch(self, worker: QueueWorker) -> None:
        """Begin to watch."""
        self._worker = worker
        self._handing_back = _Helper("queue-system-hand-back", self._hand_back)
        self._last_word = _Helper("queue-system-last-word", self._say)
        threading.Thread(target=self._watch, name="queue-system-leaving", daemon=True).start()

    def left(self, code: int) -> None:
        """Note that the worker has signed off, and the exit code that the process is to have."""
        self._left = code

    def _watch(self) -> None:
        if self._wait_until(self._asked, None) and not self._wait_until(self._has_left, self._grace_s + BLOCKED_S):
            self._handing_back.help(_HAND_BACK_S)
            self._end(self._code, "the event loop is blocked: what it runs is handed back, and the process ends")
        self._wait_until(self._has_left, None)
        self._pause.acquire(timeout=LINGER_S)  # mostly, the process has ended long before
        self._end(self._left or 0, "the worker has left; threads or tasks of the application run on, and are ended")

    def _has_left(self) -> bool:
        return self._left is not None

    def _wait_until(self, holds: Callable[[], bool], longest_s: float | None) -> bool:
        """Wait for a condition, or for the worker's end; tell whether the condition holds."""
        until = float("inf") if longest_s is None else SYSTEM_CLOCK.monotonic() + longest_s
        while not holds():
            if self._has_left() or SYSTEM_CLOCK.monotonic() >= until:
                return False
            self._pause.acquire(timeout=_LOOK_EVERY_S)
        return True

    def _hand_back(self) -> None:
        if self._worker is not None:
            self._worker.hand_back()

    def _end(self, code: int, why: str) -> None:
        self._left = code
        self._why = why
        try:
            self._last_word.help(_LAST_WORD_S)
        finally:  # whatever logging does, as where memory is at its limit or somebody keeps its locks
            _exit(code)

    def _say(self) -> None:
        threads = [thread.name for thread in threading.enumerate() if not thread.daemon]
        log = StructuredLogger.wrap() if self._worker is None else self._worker.config.log
        log.warning(self._why, exit_code=self._left, threads=", ".join(threads[:10]))
        streams = (*logging.getLogger().handlers, sys.stdout, sys.stderr)
        for stream in streams:
            with suppress(Exception):
                stream.flush()
