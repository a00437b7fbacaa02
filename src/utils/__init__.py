"""The resilience decorators under their short import path.

A project's own folder `utils` without an `__init__.py` goes on to work beside it: the path of this package includes it.
"""

from __future__ import annotations

from pkgutil import extend_path

from queue_system.resilience import CircuitBreaker, circuit_breaker, retry_with_backoff, try_catch, with_timeout

__all__ = ["CircuitBreaker", "circuit_breaker", "retry_with_backoff", "try_catch", "with_timeout"]

__path__ = extend_path(__path__, __name__)
