"""The checks of `doctor` that concern the server: version, persistence, eviction, memory, latency, clock, rights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import quantiles
from typing import Final

from queue_system.broker.commands import ping, server_time
from queue_system.broker.diagnostics import ROLES, try_commands
from queue_system.cli.checks import Examination, Level, Result
from queue_system.cli.text import span
from queue_system.errors import AccessDeniedError, ServerError, ServerUnreachableError
from queue_system.imports.policy import missing_modules
from queue_system.supervision.targets import import_from_here

_PINGS: Final = 100
_SLOW_S: Final = 0.005
_SLOW_P99_S: Final = 0.25
_HUNG_S: Final = 1.0
_CLOCK_S: Final = 1.0
_FULL: Final = 0.95
_NEARLY_FULL: Final = 0.8
_SHOWN: Final = 8
_MIB: Final = 1024 * 1024


def server(exam: Examination) -> Result:
    """Check which server this is, and whether its version has known flaws."""
    info = exam.info
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version")
    if version is None:
        return Result(Level.SKIP, "the server does not show its version", "let this user run INFO")
    details = {
        "name": name,
        "version": version,
        "mode": info.get("redis_mode") or info.get("server_mode", "standalone"),
    }
    if (flaw := exam.finding("version")) is not None:
        return Result(Level.WARN, flaw.problem, flaw.remedy, details)
    up = span(int(info.get("uptime_in_seconds", 0)) or 1)
    return Result(Level.OK, f"{name} {version}, {details['mode']}, up for {up}", details=details)


def persistence(exam: Examination) -> Result:
    """Check what a restart or a power cut would lose."""
    info = exam.info
    settings = exam.settings
    if not info and not settings:
        return Result(Level.SKIP, "the server does not show what it writes", "let this user run INFO")
    names = (
        "aof_enabled", "aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status",
        "rdb_last_save_time", "rdb_changes_since_last_save",
    )  # fmt: skip
    details = {name: info[name] for name in names if name in info}
    details |= {name: settings[name] for name in ("appendonly", "appendfsync", "save") if name in settings}
    if (none := exam.finding("persistence")) is not None:
        return Result(Level.FAIL, none.problem, none.remedy, details)
    broken = [name for name in names if name.endswith("_status") and info.get(name, "ok") != "ok"]
    if broken:
        return Result(Level.FAIL, f"the last write failed: {', '.join(broken)}", "look at disk space and log", details)
    if (lazy := exam.finding("fsync")) is not None:
        return Result(Level.WARN, lazy.problem, lazy.remedy, details)
    if info.get("aof_enabled") == "1" or settings.get("appendonly") == "yes":
        policy = settings.get("appendfsync", "not shown to this user")
        return Result(Level.OK, f"append-only file, appendfsync {policy}; its last write is ok", details=details)
    if "save" not in settings:
        problem = "there is no append-only file; whether there are snapshots is not shown to this user"
    else:
        age = span(max(1.0, time.time() - int(info.get("rdb_last_save_time", time.time()))))
        changes = info.get("rdb_changes_since_last_save", "?")
        problem = f"snapshots only: a crash now loses {changes} changes; the last snapshot is {age} old"
    return Result(Level.WARN, problem, "set appendonly yes", details)


def eviction(exam: Examination) -> Result:
    """Return whether the server throws operations away when memory runs short."""
    policy = exam.settings.get("maxmemory-policy") or exam.info.get("maxmemory_policy")
    if policy is None:
        return Result(Level.SKIP, "the server does not show its policy", "let this user run INFO")
    details = {"maxmemory_policy": policy}
    danger = exam.finding("eviction")
    if danger is None:
        return Result(
            Level.OK,
            f"maxmemory-policy is {policy}: a full server refuses new data and keeps what it has",
            details=details,
        )
    loses = policy.startswith("allkeys-") and exam.info.get("maxmemory") != "0"
    return Result(Level.FAIL if loses else Level.WARN, danger.problem, danger.remedy, details)


def memory(exam: Examination) -> Result:
    """Check how much room is left."""
    used = int(exam.info.get("used_memory", 0))
    limit = int(exam.info.get("maxmemory", 0))
    if not used:
        return Result(Level.SKIP, "the server does not show its memory", "let this user run INFO")
    details = {"used_bytes": used, "maxmemory_bytes": limit}
    if not limit:
        if not (total := int(exam.info.get("total_system_memory", 0))):
            return Result(Level.OK, f"{_mib(used)} used, no maxmemory", details=details)
        level = Level.WARN if used > _NEARLY_FULL * total else Level.OK
        advice = "give it more memory, or purge; see `queue-system status`" if level is Level.WARN else ""
        return Result(level, f"{_mib(used)} used, no maxmemory; the machine has {_mib(total)}", advice, details)
    share = used / limit
    level = Level.FAIL if share > _FULL else Level.WARN if share > _NEARLY_FULL else Level.OK
    advice = "" if level is Level.OK else "raise maxmemory, start workers, or purge; a full server refuses to enqueue"
    return Result(level, f"{_mib(used)} of {_mib(limit)} used ({share:.0%} of maxmemory)", advice, details)


def latency(exam: Examination) -> Result:
    """Measure round trips."""
    command = ping()
    exam.run(command)  # connects
    times = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        exam.run(command)
        times.append(time.perf_counter() - began)
    cuts = quantiles(times, n=100)
    p50 = cuts[49]
    p99 = cuts[98]
    details = {"pings": _PINGS, "p50_ms": round(p50 * 1000, 3), "p99_ms": round(p99 * 1000, 3)}
    sentence = f"a round trip takes {span(p50)} (p50), {span(p99)} (p99 of {_PINGS})"
    if p99 > _HUNG_S:
        return Result(Level.FAIL, sentence, "look for slow commands (SLOWLOG GET), swapping and the network", details)
    if p50 > _SLOW_S or p99 > _SLOW_P99_S:
        return Result(Level.WARN, sentence, "run workers near the server; look at SLOWLOG GET and the network", details)
    return Result(Level.OK, sentence, details=details)


def clock(exam: Examination) -> Result:
    """Compare the server's clock with this machine's."""
    before = time.time()
    there = exam.run(server_time())
    ahead = there - (before + time.time()) / 2
    details = {"server_ahead_s": round(ahead, 3)}
    if abs(ahead) <= _CLOCK_S:
        return Result(Level.OK, f"the server's clock and this one differ by {span(abs(ahead))}", details=details)
    direction = "ahead of" if ahead > 0 else "behind"
    sentence = f"the server's clock is {span(abs(ahead))} {direction} this one: times shown are off, leases are not"
    return Result(Level.WARN, sentence, "let both machines follow NTP", details)


def rights(exam: Examination) -> Result:
    """Check which rights the current user lacks for a role of docs/acl."""
    lacks: dict[str, list[str]] = {}
    try:
        for role, names in ROLES.items():
            lacks[role] = exam.run(try_commands(exam.config.queue_prefix, names.split()))
    except (AccessDeniedError, ServerUnreachableError):
        raise
    except ServerError as error:
        return Result(Level.SKIP, f"rights cannot be tried here: {error}", "this check needs Redis 7 or Valkey")
    details = {"lacks": lacks}
    able = [role for role, denied in lacks.items() if not denied]
    missing = "; ".join(f"as {role} it lacks {_some(denied)}" for role, denied in lacks.items() if denied)
    if exam.role is not None:
        lacking = ", ".join(lacks[exam.role])
        if not lacking:
            return Result(Level.OK, f"this user may act as {exam.role}", details=details)
        return Result(Level.FAIL, f"as {exam.role} this user lacks {lacking}", _rules(exam.role), details)
    if not missing:
        return Result(Level.OK, "this user may act as viewer, enqueuer, producer and worker", details=details)
    if not able:
        return Result(Level.FAIL, f"this user may act in no role: {missing}", _rules("worker"), details)
    return Result(Level.WARN, f"this user may act as {' and '.join(able)}; {missing}", _rules("the role"), details)


def names(exam: Examination) -> Result:
    """Check which functions an item may name, as far as this configuration says, and who may write items."""
    allowed = exam.allowed_modules
    endpoint = exam.shard.endpoint()
    details = {"allowed_modules": allowed, "asks_for_credentials": endpoint.is_authenticated}
    if allowed is not None:
        import_from_here()
        if missing := missing_modules(allowed):
            return Result(
                Level.WARN,
                f"allowed_modules names what cannot be found from this folder: {_some(missing)}",
                "correct the name, or run this in the folder where the workers run",
                {**details, "missing": missing},
            )
        modules = _some(allowed) or "no module"
        return Result(
            Level.OK, f"names from Redis lead to functions of {modules}, and to registered ones", details=details
        )
    anywhere = "allowed_modules is unset: names from Redis lead to any function of the application"
    if endpoint.is_authenticated:
        return Result(Level.OK, f"{anywhere}; only users who log in can write them", details=details)
    if endpoint.is_local:
        return Result(Level.OK, f"{anywhere}; only users who can open the socket can write them", details=details)
    advice = (
        "name your modules: QueueConfig(allowed_modules=[...]) or --allowed-modules; and set a password: docs/acl.md"
    )
    return Result(Level.WARN, f"{anywhere}, and this server asks for no password", advice, details)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _rules(role: str) -> str:
    return f"the rules for {role} are in docs/acl; --role asks for one role only"


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"
