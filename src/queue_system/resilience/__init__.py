"""Timeouts, circuit breakers, retries and error reports as decorators."""

from __future__ import annotations

from queue_system.resilience.backoff import backoff_delay, retry_with_backoff
from queue_system.resilience.breaker import CircuitBreaker, CircuitState
from queue_system.resilience.circuits import circuit_breaker, get_breaker
from queue_system.resilience.guard import try_catch
from queue_system.resilience.threads import abandoned_threads, call_in_thread, in_daemon_thread
from queue_system.resilience.timeout import with_timeout

__all__ = [
    "CircuitBreaker",
    "CircuitState",
    "abandoned_threads",
    "backoff_delay",
    "call_in_thread",
    "circuit_breaker",
    "get_breaker",
    "in_daemon_thread",
    "retry_with_backoff",
    "try_catch",
    "with_timeout",
]
