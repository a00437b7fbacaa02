"""When a failed operation runs again: the retry schedule of one operation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from queue_system.validation import check_instance, check_list, check_number, check_seconds, check_whole, refused

MAX_ATTEMPTS_LIMIT: Final = 10_000

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
        no_limit = "use None for no limit"
        self._timeout = None if timeout is None else check_seconds("timeout", timeout, above=True, way_out=no_limit)

    @classmethod
    def fixed(
        cls, delay: float, max_attempts: int = _DEFAULT_ATTEMPTS, timeout: float | None = None
    ) -> QueueRetryConfig:
        """Wait the same `delay` (seconds) before every retry."""
        seconds = check_seconds("delay", delay)
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
        factor = check_number("base", base, above=True)
        shortest = check_seconds("min_delay", min_delay)
        longest = check_seconds("max_delay", max_delay)
        if longest < shortest:
            raise refused("max_delay", f"at least min_delay, {shortest:g} s", f"{longest:g}", "raise it")
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
        check_instance("retry_config", data, dict, "use what to_dict returns")
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
        delay = self._delays[min(check_whole("attempt", attempt, 0), len(self._delays) - 1)]
        return delay * random.uniform(1 - _JITTER, 1 + _JITTER)

    def would_exceed_timeout(self, first_attempt_time: float, current_time: float, *, delay: float = 0.0) -> bool:
        """Return whether a retry `delay` seconds after `current_time` would start with nothing left of `timeout`.

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
    return check_whole("max_attempts", value, 1, MAX_ATTEMPTS_LIMIT, "count the first attempt, too")


def _checked_delays(values: object) -> tuple[float, ...]:
    delays = check_list("delays", values, "a list of seconds")
    if not 1 <= len(delays) <= MAX_ATTEMPTS_LIMIT:
        expected = f"a list of 1 to {MAX_ATTEMPTS_LIMIT:,} delays"
        raise refused("delays", expected, f"{len(delays):,}", "use [0] for no wait between attempts")
    return tuple([check_seconds(f"delays[{index}]", value) for index, value in enumerate(delays)])
