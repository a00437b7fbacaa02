"""What some servers can do and others cannot. A worker finds out, so that no server is asked for what it lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from queue_system.broker.diagnostics import may_write_many
from queue_system.broker.protocol import Command
from queue_system.errors import QueueSystemError, ServerUnreachableError

WRITE_MANY: Final = "MSETEX"
"""Writes many keys with one lifetime."""
_SINCE: Final = {"valkey_version": (9, 1), "redis_version": (8, 4)}
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})")


def many_writer(info: Mapping[str, str], prefix: str, run: Callable[[Command[bool]], bool]) -> str:
    """Return the command that writes many keys with one lifetime; empty if there is none that this user may run.

    `info` is what the server says of itself. Raises ServerUnreachableError.
    """
    name = "valkey_version" if "valkey_version" in info else "redis_version"
    version = _VERSION.match(info.get(name, ""))
    if "dragonfly_version" in info or version is None or (int(version[1]), int(version[2])) < _SINCE[name]:
        return ""
    if _is_full(info):
        return ""  # it would refuse the question, too, and count that
    try:
        return WRITE_MANY if run(may_write_many(WRITE_MANY, prefix)) else ""
    except ServerUnreachableError:
        raise
    except QueueSystemError:  # such as a server that names a version which it is not
        return ""


def _is_full(info: Mapping[str, str]) -> bool:
    """Return whether a server refuses to write for want of memory."""
    used = info.get("used_memory", "")
    most = info.get("maxmemory", "")
    return used.isdecimal() and most.isdecimal() and 0 < int(most) <= int(used)
