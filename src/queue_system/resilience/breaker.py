"""The circuit breaker: a thread-safe state machine fed with the outcomes of calls."""

from __future__ import annotations

import enum
import inspect
import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar, cast

from queue_system.clock import SYSTEM_CLOCK, Clock
from queue_system.errors import CircuitOpenError
from queue_system.forking import renew_in_children
from queue_system.resilience.selection import selects
from queue_system.validation import NOT_EMPTY, check_exceptions, check_seconds, check_text, check_whole

__all__ = ["CircuitBreaker", "CircuitState"]

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST_TRIAL_WAIT: Final = 1.0  # how long a running trial takes is unknown; callers must not spin until it ends


class CircuitState(enum.StrEnum):
    """What a breaker does with the next call: admit it, reject it, or try whether the service is back."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


_CLOSED: Final = CircuitState.CLOSED
_OPEN: Final = CircuitState.OPEN
_HALF_OPEN: Final = CircuitState.HALF_OPEN


class CircuitBreaker:
    """Rejects calls to a service that keeps failing, until trial calls show that it is back.

    `failure_threshold` failures within `window_size` seconds open it. After `recovery_timeout` seconds at most
    `half_open_max_calls` trial calls run at once: the first success closes it, a failure opens it again. An error is
    a failure if it is one of `exceptions` (None: any Exception); every other error, a CircuitOpenError that is not
    listed itself, and a cancellation count as neither failure nor success.

    Raises InvalidInputError for a wrong parameter.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_era",
        "_failures",
        "_lock",
        "_opened_at",
        "_state",
        "_trials",
        "exceptions",
        "failure_threshold",
        "half_open_max_calls",
        "name",
        "recovery_timeout",
        "window_size",
    )

    def __init__(
        self,
        name: str,
        failure_threshold: int = 5,
        recovery_timeout: float = 30.0,
        half_open_max_calls: int = 3,
        window_size: float = 60.0,
        *,
        exceptions: tuple[type[Exception], ...] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        selected = (Exception,) if exceptions is None else exceptions
        check_text("name", name, "text that is not empty", NOT_EMPTY)
        check_whole("failure_threshold", failure_threshold, 1)
        check_seconds("recovery_timeout", recovery_timeout, most=math.inf, above=True)
        check_whole("half_open_max_calls", half_open_max_calls, 1)
        check_seconds("window_size", window_size, most=math.inf, above=True)
        check_exceptions("exceptions", selected)
        self.name: Final = name
        self.failure_threshold: Final = failure_threshold
        self.recovery_timeout: Final = recovery_timeout
        self.half_open_max_calls: Final = half_open_max_calls
        self.window_size: Final = window_size
        self.exceptions: Final = selected
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may call what it interrupted
        self._state = _CLOSED
        self._era = 0  # grows with every change of state, so that late outcomes are not taken for current ones
        self._opened_at = 0.0
        self._trials = 0
        self._failures: deque[float] = deque(maxlen=failure_threshold)
        renew_in_children(self)

    def renew(self) -> None:
        """In a forked child: forget the trials of its parent, whose outcome comes there."""
        self._lock = threading.RLock()
        if self._state is _HALF_OPEN:
            self._trials = 0
            self._era += 1

    def half_open(self) -> None:
        """Note that the service is at another place now: what failed at the old one tells nothing of it.

        An open breaker admits trials at once; a closed one forgets its failures. The calls under way count no more, and
        take no trial's place.
        """
        with self._lock:
            self._become(_CLOSED if self._state is _CLOSED else _HALF_OPEN)

    @property
    def state(self) -> CircuitState:
        """The state as the next call will find it: an open breaker whose recovery time is over is half-open."""
        with self._lock:
            if self._state is _OPEN and self._remaining() <= 0:
                return _HALF_OPEN
            return self._state

    @property
    def is_open(self) -> bool:
        """Whether it rejects calls for some time yet; a trial under way does not count."""
        return self._state is _OPEN and self._remaining() > 0

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` and record the outcome; for an async function, return a coroutine that does so.

        Raises CircuitOpenError without calling `fn` while the breaker rejects calls.
        """
        if inspect.iscoroutinefunction(fn):
            return cast("R", self.run_async(fn, args, kwargs))
        return self.run(fn, args, kwargs)

    def run(self, fn: Callable[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> R:
        """Do what `call` does for a function that is known to be sync."""
        era = self._era if self._state is _CLOSED else self.before_call()
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            self._record_error(error, era)
            raise
        if self._state is not _CLOSED:
            self.record_success(era)
        return result

    async def run_async(self, fn: Callable[..., Awaitable[R]], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> R:
        """Do what `call` does for a function that is known to be async."""
        era = self.before_call()
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            self._record_error(error, era)
            raise
        self.record_success(era)
        return result

    def before_call(self) -> int:
        """Admit a call, which must then end in one of `record_success`, `record_failure` and `release`.

        The answer is the breaker's era; an outcome that is reported with it counts only while that era lasts.
        Raises CircuitOpenError, with the seconds to wait, while the breaker rejects calls.
        """
        era = self._era
        if self._state is _CLOSED:
            return era
        with self._lock:
            return self._admit()

    def check(self) -> None:
        """Raise CircuitOpenError while it is open, without admitting a call."""
        if self.is_open:
            raise CircuitOpenError(self.name, max(0.0, self._remaining()))

    def record_success(self, era: int | None = None) -> None:
        """End a call that succeeded; a successful trial closes the breaker. Without `era` it counts in any case."""
        if self._state is _CLOSED:
            return
        with self._lock:
            if self._state is _HALF_OPEN and self._is_current(era):
                self._become(_CLOSED)

    def record_failure(self, era: int | None = None) -> None:
        """End a call that failed; a failed trial opens the breaker again. Without `era` it counts in any case."""
        with self._lock:
            if not self._is_current(era) or self._state is _OPEN:
                return
            now = self._clock.monotonic()
            if self._state is _CLOSED:
                failures = self._failures
                failures.append(now)
                if len(failures) < self.failure_threshold or now - failures[0] > self.window_size:
                    return
            self._become(_OPEN)
            self._opened_at = now

    def release(self, era: int | None = None) -> None:
        """End a call that counts as neither, such as a cancelled one; a trial frees its place for another."""
        if self._state is _CLOSED:
            return
        with self._lock:
            if self._is_current(era):
                self._trials = max(0, self._trials - 1)

    def _record_error(self, error: BaseException, era: int) -> None:
        if selects(self.exceptions, error):
            self.record_failure(era)
        else:
            self.release(era)

    def _admit(self) -> int:
        if self._state is _OPEN:
            remaining = self._remaining()
            if remaining > 0:
                raise CircuitOpenError(self.name, remaining)
            self._become(_HALF_OPEN)
        if self._state is _HALF_OPEN:
            if self._trials >= self.half_open_max_calls:
                raise CircuitOpenError(self.name, min(_LONGEST_TRIAL_WAIT, self.recovery_timeout))
            self._trials += 1
        return self._era

    def _become(self, state: CircuitState) -> None:
        self._state = state
        self._era += 1
        self._trials = 0
        self._failures.clear()

    def _remaining(self) -> float:
        return self._opened_at + self.recovery_timeout - self._clock.monotonic()

    def _is_current(self, era: int | None) -> bool:
        return era is None or era == self._era
