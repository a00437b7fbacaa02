"""When a failed operation runs again: the retry schedule of one operation. Never waits and never reads a clock."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Final

from queue_system.errors import InvalidInputError

MAX_ATTEMPTS_LIMIT: Final = 10_000
LONGEST_S: Final = 1e9
"""The largest delay or timeout in seconds, about 31 years: due times in milliseconds stay exact numbers."""

_DEFAULT_ATTEMPTS: Final = 5
_DEFAULT_BASE: Final = 2.0
_DEFAULT_MIN_DELAY_S: Final = 1.0
_DEFAULT_MAX_DELAY_S: Final = 60.0
_DEFAULT_DELAYS: Final = (1.0, 2.0, 4.0, 8.0, 16.0)  # what the four defaults above amount to
_JITTER: Final = 0.1


class QueueRetryConfig:
    """How often an operation is tried and how long it waits in between. Immutable, comparable and hashable.

    `max_attempts` counts executions in all, the first one included. `delays` are seconds: `delays[0]` is the wait
    after the first failure, and the last one repeats. `timeout` is the total time in seconds from the first
    attempt on; None means no limit. A wrong value raises InvalidInputError with the argument's name.
    """

    __slots__ = ("_delays", "_max_attempts", "_timeout")

    _max_attempts: int
    _delays: tuple[float, ...]
    _timeout: float | None

    def __init__(
        self,
        max_attempts: int = _DEFAULT_ATTEMPTS,
        delays: Sequence[float] | None = None,
        timeout: float | None = None,
    ) -> None:
        self._max_attempts = _checked_attempts(max_attempts)
        self._delays = tuple(self._generate_exponential_delays()) if delays is None else _checked_delays(delays)
        self._timeout = None if timeout is None else _positive("timeout", timeout)

    @classmethod
    def fixed(
        cls, delay: float, max_attempts: int = _DEFAULT_ATTEMPTS, timeout: float | None = None
    ) -> QueueRetryConfig:
        """Wait the same `delay` (seconds) before every retry."""
        seconds = _not_negative("delay", delay)
        return cls(max_attempts, [seconds] * _checked_attempts(max_attempts), timeout)

    @classmethod
    def exponential(
        cls,
        base: float = _DEFAULT_BASE,
        min_delay: float = _DEFAULT_MIN_DELAY_S,
        max_delay: float = _DEFAULT_MAX_DELAY_S,
        max_attempts: int = _DEFAULT_ATTEMPTS,
        timeout: float | None = None,
    ) -> QueueRetryConfig:
        """Wait `min_delay` seconds first, then `base` times longer each time, never longer than `max_delay`."""
        factor = _positive("base", base)
        shortest = _not_negative("min_delay", min_delay)
        longest = _not_negative("max_delay", max_delay)
        if longest < shortest:
            raise InvalidInputError("max_delay", f"{max_delay!r} is below min_delay {min_delay!r}; raise it")
        count = _checked_attempts(max_attempts)
        return cls(max_attempts, _exponential(factor, shortest, longest, count), timeout)

    @classmethod
    def custom(
        cls, delays: Sequence[float], max_attempts: int | None = None, timeout: float | None = None
    ) -> QueueRetryConfig:
        """Wait `delays[i]` seconds after failure `i`; `max_attempts` defaults to the number of delays."""
        checked = _checked_delays(delays)
        return cls(len(checked) if max_attempts is None else max_attempts, checked, timeout)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QueueRetryConfig:
        """Build it from what `to_dict` gave. Unknown members are ignored, missing ones take their default."""
        if not isinstance(data, dict):
            raise InvalidInputError("retry_config", f"expected a dict as to_dict gives it, got {type(data).__name__}")
        return cls(data.get("max_attempts", _DEFAULT_ATTEMPTS), data.get("delays"), data.get("timeout"))

    def to_dict(self) -> dict[str, Any]:
        """Return `max_attempts`, `delays` and `timeout` as JSON values."""
        return {"max_attempts": self._max_attempts, "delays": list(self._delays), "timeout": self._timeout}

    @property
    def max_attempts(self) -> int:
        """Executions in all, the first one included."""
        return self._max_attempts

    @property
    def delays(self) -> list[float]:
        """The waits in seconds, without jitter, as a new list."""
        return list(self._delays)

    @property
    def timeout(self) -> float | None:
        """Seconds that all attempts together may take, or None for no limit."""
        return self._timeout

    @property
    def is_default(self) -> bool:
        """Whether this equals `QueueRetryConfig()`, so that an item need not carry it."""
        return self._max_attempts == _DEFAULT_ATTEMPTS and self._timeout is None and self._delays == _DEFAULT_DELAYS

    def get_delay_for_attempt(self, attempt: int) -> float:
        """Return the seconds to wait after failed attempt `attempt` (from 0 on), with ±10 % jitter."""
        if type(attempt) is not int or attempt < 0:
            raise InvalidInputError("attempt", f"expected an integer of 0 or more, got {_shown(attempt)}")
        delay = self._delays[min(attempt, len(self._delays) - 1)]
        return delay * random.uniform(1 - _JITTER, 1 + _JITTER)

    def would_exceed_timeout(self, first_attempt_time: float, current_time: float, *, delay: float = 0.0) -> bool:
        """Tell whether a retry `delay` seconds after `current_time` would start with nothing left of `timeout`.

        Both times are seconds of one clock. Always False without a timeout.
        """
        if self._timeout is None:
            return False
        elapsed = max(0.0, current_time - first_attempt_time)  # a clock set back must not lengthen the limit
        return elapsed + delay >= self._timeout

    def _generate_exponential_delays(self) -> list[float]:
        return _exponential(_DEFAULT_BASE, _DEFAULT_MIN_DELAY_S, _DEFAULT_MAX_DELAY_S, self._max_attempts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QueueRetryConfig):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"QueueRetryConfig(max_attempts={self._max_attempts}, delays={self.delays}, timeout={self._timeout})"

    def _key(self) -> tuple[int, tuple[float, ...], float | None]:
        return self._max_attempts, self._delays, self._timeout


def _exponential(base: float, min_delay: float, max_delay: float, count: int) -> list[float]:
    delays: list[float] = []
    for exponent in range(count):
        try:
            delay = min(max_delay, min_delay * base**exponent)
        except OverflowError:
            delay = max_delay if min_delay else 0.0
        delays.append(delay)
    return delays


def _checked_attempts(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError("max_attempts", f"expected an integer, got {_shown(value)}")
    if not 1 <= value <= MAX_ATTEMPTS_LIMIT:
        problem = f"expected 1 to {MAX_ATTEMPTS_LIMIT} executions, got {_shown(value)}"
        raise InvalidInputError("max_attempts", problem)
    return int(value)


def _checked_delays(values: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple):
        raise InvalidInputError("delays", f"expected a list of seconds, got {_shown(values)}")
    if not 1 <= len(values) <= MAX_ATTEMPTS_LIMIT:
        problem = f"expected 1 to {MAX_ATTEMPTS_LIMIT} delays, got {len(values)}; for no wait between attempts give [0]"
        raise InvalidInputError("delays", problem)
    return tuple([_not_negative(f"delays[{index}]", value) for index, value in enumerate(values)])


def _not_negative(field: str, value: object) -> float:
    seconds = _number(field, value)
    if not 0 <= seconds <= LONGEST_S:
        raise InvalidInputError(field, f"expected 0 to {LONGEST_S:.0f}, got {_shown(value)}")
    return seconds


def _positive(field: str, value: object) -> float:
    number = _number(field, value)
    if not 0 < number <= LONGEST_S:
        raise InvalidInputError(field, f"expected more than 0 and at most {LONGEST_S:.0f}, got {_shown(value)}")
    return number


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(field, f"expected a number, got {_shown(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _shown(value: object) -> str:
    """Name a refused value: a number itself, of anything else only the type, which may be long or secret."""
    if isinstance(value, float) or (isinstance(value, int) and -LONGEST_S <= value <= LONGEST_S):
        return repr(value)
    return "a larger integer" if isinstance(value, int) else type(value).__name__
