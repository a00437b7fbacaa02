"""What a refused value is told by: what was expected, and what was given, with its article."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from queue_system import InvalidInputError, QueueConfig, QueueManager, QueueWorker


def made(**settings: Any) -> QueueConfig:
    return QueueConfig(**{"redis_url": "redis://localhost:1/0", **settings})


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: made(redis_url=5), "redis_url: expected a URL such as 'redis://host:6379/0', got an int"),
        (lambda: made(redis_url=object()), "redis_url: expected a URL such as 'redis://host:6379/0', got an object"),
        (lambda: made(encryption=5), "encryption: expected methods encrypt and decrypt, got an int"),
        (lambda: made(allowed_modules=["a b"]), "allowed_modules: expected the name of a module, got 'a b'"),
        (lambda: QueueManager({}), "config: expected a QueueConfig, got a dict"),  # type: ignore[arg-type]
        (lambda: QueueWorker(5), "config: expected a QueueConfig, got a value of type int"),  # type: ignore[arg-type]
    ],
)
def test_a_refused_value_is_told_by_what_was_expected_and_given(call: Callable[[], object], told: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        call()
    assert str(caught.value) == told
