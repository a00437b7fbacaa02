"""Pauses garbage collection while many objects are built at once."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Iterator


class _Pause:
    """How many threads build something, and whether collections go on behind the last one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may come in between
        self._builders = 0
        self._collects = False

    def begin(self) -> None:
        with self._lock:
            if not self._builders:
                self._collects = gc.isenabled()
                gc.disable()
            self._builders += 1

    def end(self) -> None:
        with self._lock:
            if not self._builders:
                return  # forked meanwhile
            self._builders -= 1
            if not self._builders and self._collects:
                gc.enable()

    def forget(self) -> None:
        """In a forked child, where no other thread is left to end what it began."""
        self._lock = threading.RLock()
        if self._builders and self._collects:
            gc.enable()
        self._builders = 0


_pause = _Pause()
os.register_at_fork(after_in_child=_pause.forget)


@contextlib.contextmanager
def collections_paused() -> Iterator[None]:
    """Collect no garbage in here; afterwards as before, whatever other threads do meanwhile."""
    _pause.begin()
    try:
        yield
    finally:
        _pause.end()
