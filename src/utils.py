"""The resilience decorators under their short import path. Never defines anything itself."""

from __future__ import annotations

from queue_system.resilience import CircuitBreaker, circuit_breaker, retry_with_backoff, try_catch, with_timeout

__all__ = ["CircuitBreaker", "circuit_breaker", "retry_with_backoff", "try_catch", "with_timeout"]
