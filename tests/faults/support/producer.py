"""A thread that enqueues as an application does, and remembers how each call ended. Never judges it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from queue_system import QueueConfig, QueueManager
from tests.faults.support import processors
from tests.kit.configs import close


@contextlib.contextmanager
def managing(url: str, prefix: str, **settings: Any) -> Iterator[QueueManager]:
    """Give a manager at an address; `settings` go to QueueConfig."""
    config = QueueConfig(redis_url=url, queue_prefix=prefix, **settings)
    try:
        yield QueueManager(config)
    finally:
        close(config)


class Producer(threading.Thread):
    """Enqueues one short operation after another into a queue until told to stop; `settings` go to QueueConfig.

    The ids begin with `label`, by default the queue's name.
    """

    def __init__(
        self, url: str, prefix: str, queue: str, *, label: str = "", pause_s: float = 0.005, **settings: Any
    ) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self.errors: list[Exception] = []
        self.last_ns = 0
        """When the last call was answered, on the monotonic clock."""
        self.longest_s = 0.0
        self.over = threading.Event()
        self._queue = queue
        self._label = label or queue
        self._pause_s = pause_s
        self._open = managing(url, prefix, **settings)

    @property
    def kinds(self) -> set[str]:
        """The types of the errors so far, by name."""
        return {type(error).__name__ for error in self.errors}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(30.0)

    def run(self) -> None:
        with self._open as manager:
            serial = 0
            while not self.over.wait(self._pause_s):
                serial += 1
                self._enqueue(manager, f"{self._label}-{serial}")

    def _enqueue(self, manager: QueueManager, each: str) -> None:
        started = time.monotonic()
        try:
            manager.enqueue({"id": each, "seconds": 0.002}, processors.work, queue_name=self._queue, operation_id=each)
            self.acknowledged.append(each)
            self.last_ns = time.monotonic_ns()
        except Exception as error:  # noqa: BLE001 - the test judges its type
            self.errors.append(error)
            self.refused.append(each)
        self.longest_s = max(self.longest_s, time.monotonic() - started)
