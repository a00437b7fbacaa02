"""Threads that do the same at the same time. Never leaves one behind."""

from __future__ import annotations

import threading
from collections.abc import Callable


def in_threads(count: int, work: Callable[[], object]) -> None:
    """Start `work` in so many threads and wait for their end."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
