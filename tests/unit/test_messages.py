"""What a refused value is told by: what was expected, and what was given, and a way out where one is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from queue_system import InvalidInputError, QueueConfig, QueueManager, QueueRetryConfig, QueueWorker

SECONDS = "a number of seconds from {} to 1,000,000,000"
SCHEME = (
    "expected a URL whose scheme is one of redis, rediss, unix, valkey, valkeys, embedded, redis+sentinel,"
    " rediss+sentinel, valkey+sentinel, valkeys+sentinel"
)
FROM_1 = "expected a whole number from 1 to {}"
SECRET = "signing_keys: expected the secret of key 1 to have at least 16 bytes"


def made(**settings: Any) -> QueueConfig:
    return QueueConfig(**{"redis_url": "redis://localhost:1/0", **settings})


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: made(redis_url=5), "redis_url: expected a URL, got int; for example redis://localhost:6379/0"),
        (
            lambda: made(redis_url="http://u:hunter2@h"),
            f"redis_url: {SCHEME}, got the scheme 'http'; for example redis://localhost:6379/0",
        ),
        (
            lambda: made(encryption="hunter2"),
            "encryption: expected an object with the methods encrypt and decrypt, got str",
        ),
        (lambda: made(signing_keys={"a": b"short"}), f"{SECRET}, got 5; generate one with secrets.token_bytes(32)"),
        (lambda: made(signing_keys={"a": 5}), f"{SECRET}, got int; generate one with secrets.token_bytes(32)"),
        (lambda: made(allowed_modules=["a b"]), "allowed_modules: expected the name of a module, got 'a b'"),
        (lambda: made(allowed_modules=[5]), "allowed_modules: expected the name of a module, got int"),
        (lambda: made(lease_seconds=0), f"lease_seconds: expected {SECONDS.format('0.2')}, got 0"),
        (lambda: made(result_ttl=True), f"result_ttl: expected {SECONDS.format('0')}, got True"),
        (
            lambda: made(max_connection_retries=1.5),
            "max_connection_retries: expected a whole number from 0 to 1,000, got float",
        ),
        (lambda: made(durability="sure"), "durability: expected one of 'fast', 'fsync', 'replicated', got 'sure'"),
        (
            lambda: made(queue_prefix="a b"),
            "queue_prefix: expected 1 to 128 of the characters A-Z a-z 0-9 _ . : / { } -, got 'a b'",
        ),
        (lambda: QueueManager({}), "config: expected a QueueConfig, got dict"),  # type: ignore[arg-type]
        (lambda: QueueWorker("x"), "config: expected a QueueConfig, got str"),  # type: ignore[arg-type]
        (
            lambda: QueueWorker(made(), max_workers=0),
            f"max_workers: {FROM_1.format('100,000')}, got 0; use the number of operations that may run at once",
        ),
        (
            lambda: QueueWorker(made(), queues=[]),
            "queues: expected at least one queue name, got an empty list; use None for all queues",
        ),
        (
            lambda: QueueRetryConfig(max_attempts=0),
            f"max_attempts: {FROM_1.format('10,000')}, got 0; count the first attempt, too",
        ),
        (
            lambda: QueueRetryConfig(delays=[]),
            "delays: expected a list of 1 to 10,000 delays, got 0; use [0] for no wait between attempts",
        ),
    ],
)
def test_a_refused_value_is_told_by_what_was_expected_and_given(call: Callable[[], object], told: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        call()
    assert str(caught.value) == told
