"""What the package and its short import path offer."""

from __future__ import annotations

import inspect

import utils
from queue_system import resilience


def test_all_is_exact() -> None:
    """`__all__` of the package lists its public names and no other."""
    public = {
        name
        for name, value in vars(resilience).items()
        if not name.startswith("_") and name != "annotations" and not inspect.ismodule(value)
    }
    assert sorted(resilience.__all__) == sorted(public)


def test_utils_offers_the_same_objects() -> None:
    assert utils.__all__ == ["CircuitBreaker", "circuit_breaker", "retry_with_backoff", "try_catch", "with_timeout"]
    assert all(getattr(utils, name) is getattr(resilience, name) for name in utils.__all__)
