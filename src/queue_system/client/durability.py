"""How safe an enqueued operation is when the call returns: in memory, on disk, or on a replica."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from queue_system.broker.commands import wait_for_disk, wait_for_replica
from queue_system.broker.protocol import Command, Group
from queue_system.broker.shard import Shard
from queue_system.broker.wire import ErrorReply
from queue_system.client.flow import Flow
from queue_system.errors import (
    AccessDeniedError,
    CircuitOpenError,
    InvalidInputError,
    QueueSystemError,
    ServerError,
    ServerUnreachableError,
    UnconfirmedError,
)

_WAITS: Final = {"fsync": wait_for_disk, "replicated": wait_for_replica}
_NEEDS: Final = {
    "fsync": "it needs Redis or Valkey 7.2 with appendonly yes",
    "replicated": "it needs a replica that is connected",
}
_SHARE: Final = 0.8  # of the connection's limit, so that the server gives up before the connection does


def confirmed(
    shard: Shard, commands: Sequence[Command[Any]], durability: str, operation_ids: Sequence[str]
) -> Flow[list[Any]]:
    """Run commands that enqueue and return their answers, once the server has what `durability` asks for.

    Raises:
        InvalidInputError: the server cannot do that at all; nothing was written.
        UnconfirmedError: it did not do so in time, or can no longer.
    """
    within_s = shard.endpoint().read_limit_s * _SHARE
    if durability not in shard.confirmable:
        yield from _probe(shard, durability)
    # A resent enqueue may write nothing, and then there would be nothing to wait for; the counter always writes.
    counted = shard.commands.count_confirmed(len(operation_ids))
    wait = _WAITS[durability](int(within_s * 1000))
    every = [*(command.in_full() for command in commands), counted, wait]
    answers: list[Any]
    try:
        *answers, _, reached = yield Group(every, together=True)
    except ServerError as error:
        if not _is_answer_to(wait, error):
            raise
        shard.confirmable.discard(durability)
        raise UnconfirmedError(durability, operation_ids, within_s) from error
    if not reached:
        raise UnconfirmedError(durability, operation_ids, within_s)
    return answers


def _is_answer_to(wait: Command[Any], error: ServerError) -> bool:
    """Return whether all but the wait was done: the first of several errors is raised, and it names the command."""
    reply = error.__cause__
    return isinstance(reply, ErrorReply) and wait.name in re.findall(r"\w+", str(reply).upper())


def _probe(shard: Shard, durability: str) -> Flow[None]:
    try:
        reached = yield _WAITS[durability](int(shard.endpoint().read_limit_s * _SHARE * 1000))
    except (ServerUnreachableError, AccessDeniedError, CircuitOpenError):
        raise
    except QueueSystemError as error:
        problem = f"this server cannot confirm {durability!r}: {error}; {_NEEDS[durability]}"
        raise InvalidInputError("durability", problem) from error
    if not reached:
        problem = f"this server cannot confirm {durability!r} now; {_NEEDS[durability]}"
        raise InvalidInputError("durability", problem)
    shard.confirmable.add(durability)
