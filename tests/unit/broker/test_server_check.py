"""What is told of a server's settings and version, and that a server which tells nothing is left in peace."""

from __future__ import annotations

from typing import Any

import pytest

from queue_system.broker.protocol import Command
from queue_system.broker.server_check import Finding, findings, read_server
from queue_system.errors import AccessDeniedError, ServerUnreachableError, UnsupportedServerError

SAFE = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": "3600 1"}


def valkey(version: str) -> dict[str, str]:
    """What INFO says of a Valkey, which also names the version of Redis that it is compatible with."""
    return {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": version}


def only(info: dict[str, str], settings: dict[str, str]) -> Finding:
    (finding,) = findings(info, settings)
    return finding


def flaws(info: dict[str, str]) -> list[str]:
    """The flaws that are named, with what is said of their fix."""
    found = findings(info, {})
    assert [finding.kind for finding in found] in ([], ["version"])
    return [text for finding in found for text in finding.problem.partition(": ")[2].split(", ")]


def test_a_safe_server_gives_no_finding() -> None:
    assert findings({"maxmemory": "0", "maxmemory_policy": "noeviction", "aof_enabled": "1"}, SAFE) == []


def test_a_server_that_tells_nothing_gives_no_finding() -> None:
    assert findings({}, {}) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_policy_that_evicts_any_key_may_evict_operations(policy: str) -> None:
    finding = only({"maxmemory": "1000000"}, {**SAFE, "maxmemory-policy": policy})
    assert finding.kind == "eviction"
    assert finding.problem == f"maxmemory-policy is {policy}: the server evicts operations when memory runs short"
    assert "noeviction" in finding.remedy


def test_a_policy_for_keys_with_a_lifetime_may_evict_records_only() -> None:
    finding = only({"maxmemory": "1000000"}, {**SAFE, "maxmemory-policy": "volatile-ttl"})
    assert "evicts records of finished operations" in finding.problem


def test_an_evicting_policy_is_told_before_a_limit_is_set() -> None:
    """Whoever sets `maxmemory` later may not think of the policy."""
    assert "once maxmemory is set" in only({"maxmemory": "0"}, {**SAFE, "maxmemory-policy": "allkeys-lru"}).problem


def test_the_policy_is_known_without_config() -> None:
    assert only({"maxmemory": "1", "maxmemory_policy": "allkeys-lru"}, {}).kind == "eviction"


def test_a_server_without_log_and_snapshots_loses_everything_at_a_restart() -> None:
    finding = only({"aof_enabled": "0"}, {**SAFE, "appendonly": "no", "save": ""})
    assert finding.kind == "persistence"
    assert "a restart loses every operation" in finding.problem


@pytest.mark.parametrize(
    "info, settings",
    [
        ({}, {"appendonly": "no", "save": "3600 1"}),
        ({}, {"appendonly": "yes", "save": ""}),
        ({"aof_enabled": "1"}, {"save": ""}),
        ({"aof_enabled": "0"}, {}),
    ],
    ids=["snapshots", "log", "log, known by INFO", "snapshots unknown"],
)
def test_a_server_that_has_or_may_have_persistence_is_not_blamed(
    info: dict[str, str], settings: dict[str, str]
) -> None:
    assert findings(info, settings) == []


def test_a_log_that_nobody_forces_to_disk_is_told() -> None:
    assert only({}, {**SAFE, "appendfsync": "no"}).kind == "fsync"
    assert findings({}, {"appendonly": "no", "appendfsync": "no", "save": "3600 1"}) == []


@pytest.mark.parametrize(
    "info, named",
    [
        ({"redis_version": "6.2.15"}, ["2024-31449 (fixed in 6.2.16)", "2025-46817 (fixed in 6.2.20)",
                                       "2025-49844 (fixed in 6.2.20)"]),
        ({"redis_version": "6.2.16"}, ["2025-46817 (fixed in 6.2.20)", "2025-49844 (fixed in 6.2.20)"]),
        ({"redis_version": "6.2.20"}, []),
        ({"redis_version": "7.0.15"}, ["2024-31449 (not fixed in 7.0)", "2025-46817 (not fixed in 7.0)",
                                       "2025-49844 (not fixed in 7.0)"]),
        ({"redis_version": "7.2.11"}, ["2026-23631 (fixed in 7.2.14)"]),
        ({"redis_version": "7.2.14"}, []),
        ({"redis_version": "7.4.6"}, ["2026-23631 (fixed in 7.4.9)"]),
        ({"redis_version": "8.0.3"}, ["2025-46817 (fixed in 8.0.4)", "2025-49844 (fixed in 8.0.4)"]),
        ({"redis_version": "8.2.5"}, ["2026-23631 (fixed in 8.2.6)"]),
        ({"redis_version": "8.2.6"}, []),
        (valkey("7.2.6"), ["2024-31449 (fixed in 7.2.7)", "2025-46817 (fixed in 7.2.11)",
                           "2025-49844 (fixed in 7.2.11)", "2026-23631 (fixed in 7.2.13)"]),
        (valkey("8.0.8"), ["2026-23631 (fixed in 8.0.9)"]),
        (valkey("8.1.4"), ["2026-23631 (fixed in 8.1.7)"]),
        (valkey("8.1.10"), []),
        (valkey("9.1.2"), []),
    ],
)  # fmt: skip
def test_known_flaws_are_told_by_branch_with_the_release_that_fixed_them(
    info: dict[str, str], named: list[str]
) -> None:
    assert flaws(info) == [f"CVE-{name}" for name in named]


@pytest.mark.parametrize(
    "info",
    [
        {"redis_version": ""},
        {"redis_version": "7.2"},
        {"redis_version": "unstable"},
        {"redis_version": "7.2.²"},
        {"redis_version": f"{'9' * 5000}.2.1"},
        {"redis_version": "255.255.255"},
        {"redis_version": "7.1.0"},
        {"redis_version": "7.2.0", "dragonfly_version": "df-v1.30.0"},
    ],
)
def test_a_version_of_no_known_branch_is_not_judged(info: dict[str, str]) -> None:
    assert findings(info, {}) == []


class Answers:
    """Runs commands by a table, and keeps which came."""

    def __init__(self, answers: dict[str, dict[str, str] | Exception]) -> None:
        self._answers = answers
        self.names: list[str] = []

    def __call__(self, command: Command[Any]) -> dict[str, str]:
        self.names.append(command.name)
        answer = self._answers[command.name]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    "refusal",
    [AccessDeniedError("NOPERM"), UnsupportedServerError("unknown command"), ValueError("a reply of no known form")],
)
def test_what_is_denied_is_left_out_and_not_asked_again(refusal: Exception) -> None:
    """Each refusal makes an entry in the server's ACL log."""
    run = Answers({"INFO": {"redis_version": "8.2.6"}, "CONFIG": refusal})
    assert read_server(run) == ({"redis_version": "8.2.6"}, {})
    assert run.names.count("CONFIG") == 1
    assert read_server(Answers({"INFO": refusal, "CONFIG": SAFE})) == ({}, SAFE)


def test_a_server_that_does_not_answer_is_no_refusal() -> None:
    with pytest.raises(ServerUnreachableError):
        read_server(Answers({"INFO": ServerUnreachableError("gone")}))
