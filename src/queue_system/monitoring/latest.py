"""One slow question for all who want its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar, cast

from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import ServerUnreachableError

T_co = TypeVar("T_co", covariant=True)

FRESH_S: Final = 1.0
"""For how long an answer serves again."""
PATIENCE_S: Final = 1.0
"""How long anybody waits for an answer."""


class Latest(Generic[T_co]):
    """The latest answer to a slow question, which is asked in a thread, at most once per `FRESH_S`.

    A caller waits for it for at most `PATIENCE_S`, however long the answer takes. Thread-safe.
    """

    def __init__(self, ask: Callable[[], T_co]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asking: threading.Event | None = None
        self._answer: T_co | None = None
        self._error: Exception | None = None
        self._at = float("-inf")

    def get(self) -> T_co:
        """Return the answer; raises what the question raised, or ServerUnreachableError when it takes too long."""
        with self._lock:
            asking = self._asking
            if asking is None and SYSTEM_CLOCK.monotonic() - self._at >= FRESH_S:
                asking = threading.Event()
                threading.Thread(target=self._work, args=(asking,), name="queue-system-monitor", daemon=True).start()
                self._asking = asking  # not before: a thread that cannot start would be waited for ever after
        if asking is not None and not asking.wait(PATIENCE_S):
            raise ServerUnreachableError(f"the server does not answer within {PATIENCE_S:g} s")
        with self._lock:
            answer = self._answer
            error = self._error
        if error is not None:
            raise error.with_traceback(None)  # else it would grow with every caller
        return cast("T_co", answer)

    def _work(self, asking: threading.Event) -> None:
        answer: T_co | None = None
        error: Exception | None = None
        try:
            answer = self._ask()
        except Exception as problem:  # noqa: BLE001 - raised again for everybody who asks
            error = problem
        with self._lock:
            self._answer = answer
            self._error = error
            self._at = SYSTEM_CLOCK.monotonic()
            self._asking = None
        asking.set()
