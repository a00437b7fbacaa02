"""Which errors a decorator reacts to."""

from __future__ import annotations

from queue_system.errors import CircuitOpenError

__all__ = ["selects"]


def selects(exceptions: tuple[type[Exception], ...], error: BaseException) -> bool:
    """Whether `error` is one of `exceptions`; a CircuitOpenError is one only where that class itself is listed.

    A rejected call tried nothing: to retry it hammers an open breaker, and it says nothing about the service.
    """
    if isinstance(error, CircuitOpenError):
        exceptions = tuple(kind for kind in exceptions if issubclass(kind, CircuitOpenError))
    return isinstance(error, exceptions)
