"""What the sentinels that watch a primary say of it: they name themselves on a channel of the primary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from queue_system.broker.connection import Endpoint
from queue_system.broker.diagnostics import SENTINELS_TALK
from queue_system.broker.failures import typed
from queue_system.broker.protocol import plain
from queue_system.clock import SYSTEM_CLOCK

_SPEAKS_WITHIN_S: Final = 2.5
"""Each sentinel names itself every 2 s."""
_ANSWERS_WITHIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What one sentinel knows of a primary. `problem` is why no failover could be agreed upon; "" where it could."""

    service: str
    quorum: int
    sentinels: int
    replicas: int
    problem: str


def read_watch(endpoint: Endpoint, watching: int) -> Watch | None:
    """Ask the first sentinel that can be reached from here; None: none has named itself. Takes 3 s at most.

    Raises ServerError: none of `watching` sentinels that named themselves answers here.
    """
    problem: Exception | None = None
    for host, port, service in _speakers(endpoint, watching):
        client = redis.Redis(
            host, port, socket_timeout=_ANSWERS_WITHIN_S, socket_connect_timeout=_ANSWERS_WITHIN_S,
            retry=Retry(NoBackoff(), 0), decode_responses=True, protocol=2,
        )  # fmt: skip
        try:
            with contextlib.closing(client):
                return _ask(client, service)
        except (redis.RedisError, OSError) as error:
            problem = typed(error, f"redis://{host}:{port}")
    if problem is not None:
        raise problem
    return None


def _speakers(endpoint: Endpoint, watching: int) -> Iterator[tuple[str, int, str]]:
    """Return the sentinels as they name themselves, each once: host, port, and how they call the primary."""
    heard: set[tuple[str, int, str]] = set()
    until = SYSTEM_CLOCK.monotonic() + _SPEAKS_WITHIN_S
    with contextlib.suppress(redis.RedisError, OSError):
        connection = endpoint.connect()
        with contextlib.closing(connection):
            connection.wire.send(plain(bytes, "SUBSCRIBE", SENTINELS_TALK).request())
            while len(heard) < watching and SYSTEM_CLOCK.monotonic() < until:
                message: Any = connection.wire.receive()
                if not isinstance(message, list):  # not allowed
                    return
                if message[0] != b"message":
                    continue
                host, port, _, _, service, *_ = message[2].decode(errors="replace").split(",")
                speaker = (host, int(port), service)
                if speaker not in heard:
                    heard.add(speaker)
                    yield speaker


def _ask(client: redis.Redis, service: str) -> Watch:
    told: Any = client.execute_command("SENTINEL", "MASTER", service)
    pairs = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
    problem = ""
    try:
        client.execute_command("SENTINEL", "CKQUORUM", service)
    except redis.ResponseError as error:
        problem = f"the sentinels could not agree on a failover: {error}"
    return Watch(
        service, int(pairs["quorum"]), int(pairs["num-other-sentinels"]) + 1, int(pairs["num-slaves"]), problem
    )
