"""Whether a server can hold a queue at all: what each transport asks on its first connection."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from queue_system.broker.aio import AioTransport
from queue_system.broker.connection import check_version
from queue_system.broker.failures import across_slots
from queue_system.broker.protocol import Command, plain
from queue_system.broker.replies import parse_info
from queue_system.broker.wire import ErrorReply
from queue_system.errors import ServerError, UnsupportedServerError
from queue_system.model.keys import hash_tag

_SENTINEL: Final = (
    "the server is a sentinel, which holds no queues: write redis+sentinel://HOST:26379/SERVICE; SENTINEL MASTERS lists"
    " the services that it watches"
)


def mode_of(info: Mapping[str, str]) -> str:
    """Return `"standalone"`, `"sentinel"` or `"cluster"`, from INFO's fields; "" where it is not told."""
    return info.get("redis_mode") or info.get("server_mode", "")


def admission(prefix: str) -> Command[None]:
    """Ask a server what it is, which an ACL may deny.

    Reading the reply raises UnsupportedServerError where it is too old, a sentinel, or a node of a cluster, over
    whose slots the keys of a prefix without a hash tag would lie.
    """
    return plain(partial(_admit, prefix), "INFO", "server")


async def ask_admission(transport: AioTransport, question: Command[None]) -> None:
    """Ask it in a coroutine. Raises ServerError; a server that may not tell is let in."""
    try:
        await transport.run(question)
    except ServerError as error:
        if not isinstance(error.__cause__, ErrorReply):
            raise


def _admit(prefix: str, reply: Any) -> None:
    info = parse_info(reply)
    check_version(info)
    mode = mode_of(info)
    if mode == "sentinel":
        raise UnsupportedServerError(_SENTINEL)
    if mode == "cluster" and not hash_tag(prefix):
        raise UnsupportedServerError(across_slots("the server"))
