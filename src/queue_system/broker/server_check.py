"""Which versions and settings of a server endanger operations, and how to read the two.

Which release fixed which flaw, by branch:

- CVE-2024-31449: redis/redis pull requests 13582 to 13584; valkey-io/valkey 1113 and 1114. Redis 7.0 was no longer
  maintained; the advisory (GHSA-whxg-wx83-85p5) names all versions with Lua scripts.
- CVE-2025-46817 and CVE-2025-49844: docker-library/official-images pull request 20011; the release notes of Valkey
  7.2.11, 8.0.6, 8.1.4 and 9.0.0-rc3.
- CVE-2026-23631: redis/docs pull request 3292, redis/redis issue 15231 (6.2 is not affected); valkey-io/valkey pull
  requests 3631, 3633, 3634 and 3639 (8.0.8 was revoked). Nothing is known for certain of Redis 7.0 and 8.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from queue_system.broker.commands import server_info, server_setting
from queue_system.broker.protocol import Command
from queue_system.errors import ServerUnreachableError

Run = Callable[[Command[dict[str, str]]], dict[str, str]]
"""Runs a command; raises ServerError."""
Patches = Mapping[tuple[int, int], int | None]
"""For each branch the patch release that brought the fix, or None where none did. Other branches are not affected."""

_VERSION: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(?![0-9])")
_SECTIONS: Final = ("server", "persistence", "memory")
_SETTINGS: Final = ("maxmemory-policy", "appendonly", "appendfsync", "save")


@dataclass(frozen=True, slots=True)
class Finding:
    """A danger: its kind (`"eviction"`, `"persistence"`, `"fsync"` or `"version"`), the problem, and the way out."""

    kind: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Flaw:
    name: str
    redis: Patches
    valkey: Patches


_LUA_2025_REDIS: Final = {(6, 2): 20, (7, 0): None, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2}
_LUA_2025_VALKEY: Final = {(7, 2): 11, (8, 0): 6, (8, 1): 4}
_FLAWS: Final = (
    _Flaw("CVE-2024-31449", {(6, 2): 16, (7, 0): None, (7, 2): 6, (7, 4): 1}, {(7, 2): 7, (8, 0): 1}),
    _Flaw("CVE-2025-46817", _LUA_2025_REDIS, _LUA_2025_VALKEY),
    _Flaw("CVE-2025-49844", _LUA_2025_REDIS, _LUA_2025_VALKEY),
    _Flaw(
        "CVE-2026-23631",
        {(7, 2): 14, (7, 4): 9, (8, 2): 6, (8, 4): 3, (8, 6): 3},
        {(7, 2): 13, (8, 0): 9, (8, 1): 7, (9, 0): 4},
    ),
)


def findings(info: Mapping[str, str], settings: Mapping[str, str]) -> list[Finding]:
    """Return the dangers, at most one of each kind, from INFO's fields and CONFIG's settings.

    What neither of them shows counts as harmless.
    """
    found = (_eviction(info, settings), _persistence(info, settings), _fsync(settings), _version(info))
    return [finding for finding in found if finding is not None]


def read_server(
    run: Run, sections: Sequence[str] = _SECTIONS, settings: Sequence[str] = _SETTINGS
) -> tuple[dict[str, str], dict[str, str]]:
    """Return INFO's fields and CONFIG's settings, as far as the server shows them; by default what `findings` needs.

    Raises:
        ServerUnreachableError: no answer. What an ACL or a managed service denies is left out.
    """
    return _told(run, map(server_info, sections)), _told(run, map(server_setting, settings))


def _told(run: Run, commands: Iterable[Command[dict[str, str]]]) -> dict[str, str]:
    told: dict[str, str] = {}
    try:
        for command in commands:
            told |= run(command)
    except ServerUnreachableError:
        raise
    except Exception:  # noqa: BLE001, S110 - denied, or in a dialect of its own; asked further it would do the same
        pass
    return told


def _eviction(info: Mapping[str, str], settings: Mapping[str, str]) -> Finding | None:
    policy = settings.get("maxmemory-policy") or info.get("maxmemory_policy") or "noeviction"
    if policy == "noeviction":
        return None
    when = "once maxmemory is set" if info.get("maxmemory") == "0" else "when memory runs short"
    # Of our keys, only the records of finished operations have a lifetime.
    what = "records of finished operations" if policy.startswith("volatile-") else "operations"
    return Finding(
        "eviction",
        f"maxmemory-policy is {policy}: the server evicts {what} {when}",
        "set maxmemory-policy noeviction; a full server then refuses new operations and keeps all that it has",
    )


def _persistence(info: Mapping[str, str], settings: Mapping[str, str]) -> Finding | None:
    has_log = settings.get("appendonly") == "yes" or info.get("aof_enabled") == "1"
    if has_log or settings.get("save") != "":
        return None
    return Finding(
        "persistence",
        "the server writes neither an append-only file nor snapshots: a restart loses every operation",
        "set appendonly yes",
    )


def _fsync(settings: Mapping[str, str]) -> Finding | None:
    if settings.get("appendonly") != "yes" or settings.get("appendfsync") != "no":
        return None
    return Finding(
        "fsync",
        "appendfsync is no: a power cut loses what the operating system has not written yet, often half a minute",
        "set appendfsync everysec, or always",
    )


def _version(info: Mapping[str, str]) -> Finding | None:
    if "dragonfly_version" in info:
        return None  # it names a version of Redis that it is not
    is_valkey = "valkey_version" in info
    version = info.get("valkey_version" if is_valkey else "redis_version", "")
    numbers = _VERSION.match(version)
    if numbers is None:
        return None
    major, minor, patch = map(int, numbers.groups())
    known = []
    for flaw in _FLAWS:
        patches = flaw.valkey if is_valkey else flaw.redis
        fixed = patches.get((major, minor), 0)
        if fixed is None:
            known.append(f"{flaw.name} (not fixed in {major}.{minor})")
        elif patch < fixed:
            known.append(f"{flaw.name} (fixed in {major}.{minor}.{fixed})")
    if not known:
        return None
    return Finding(
        "version",
        f"{'Valkey' if is_valkey else 'Redis'} {version} lets users who may run scripts attack it: {', '.join(known)}",
        "install the newest release of a maintained branch, unless your distributor has put the fixes into this one",
    )
