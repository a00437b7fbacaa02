"""Watches the .py files below the current folder, with the `cli` extra's watchfiles."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from queue_system.errors import InvalidInputError

_LOOK_UP_MS: Final = 200
_BEGIN_WITHIN_S: Final = 5.0


class SourceWatch:
    """Calls a function, in a thread, after source files have changed.

    Raises:
        InvalidInputError: watchfiles is not installed.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        try:
            import watchfiles  # noqa: PLC0415 - an optional extra
        except ImportError:
            raise InvalidInputError("reload", "it needs watchfiles: pip install 'redis-queue-system[cli]'") from None
        self._stopped = threading.Event()
        self._watching = threading.Event()

        def watch() -> None:
            sources = watchfiles.PythonFilter()
            for changes in watchfiles.watch(
                Path.cwd(), watch_filter=sources, stop_event=self._stopped, debounce=200,
                rust_timeout=_LOOK_UP_MS, yield_on_timeout=True,
            ):  # fmt: skip
                self._watching.set()
                if changes:
                    changed()

        self._thread = threading.Thread(target=watch, name="queue-system-reload", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._watching.wait(_BEGIN_WITHIN_S)  # what is imported from now on is seen to change
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
