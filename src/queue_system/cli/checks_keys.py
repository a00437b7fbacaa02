"""The checks of `doctor` that concern keys: lost operations, unregistered lists, dead letters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from queue_system.broker.admission import mode_of
from queue_system.broker.diagnostics import key_length, key_page, key_type
from queue_system.cli.checks import Examination, Level, Result
from queue_system.cli.text import count
from queue_system.inspection.workers import inflight_flow
from queue_system.model.formats import dead
from queue_system.model.keys import PRIORITIES, hash_tag, split_queue

_TYPES: Final[Mapping[str, str]] = {
    "registry": "set",
    **{f"ready:{priority}": "zset" for priority in PRIORITIES},
    "delayed": "zset",
    "workers": "hash",
    "token": "string",
    "dedup": "hash",
    "wake": "zset",
    "waiters": "zset",
    "swept": "string",
    "failures": "list",
    "system_errors": "list",
    "metrics": "hash",
    "resting": "zset",
}
_TYPES_OF_MANY: Final[Mapping[str, str]] = {"inflight": "hash", "wake": "zset", "change": "stream"}
_UNTYPED: Final = "operation:"
"""Records are too many to ask the type of each."""
_CHUNK: Final = 500
_NEARLY_FULL: Final = 0.9


def orphans(exam: Examination) -> Result:
    """Look for operations that no worker holds, lists that none looks at, and keys of a foreign type."""
    prefix = exam.config.queue_prefix
    found = list(_typed_keys(exam))
    problems = []
    advice = []
    details = dict[str, Any]()
    if wrong := {key: kind for key, kind, expected in found if kind != expected}:
        details["wrong_type"] = wrong
        problems.append("of a foreign type: " + ", ".join(f"{key} ({kind})" for key, kind in wrong.items()))
        advice.append("RENAME those keys away")
        if exam.shard.keys.workers in wrong:  # without it nobody can tell whose operations are lost
            return Result(Level.FAIL, problems[0], advice[0], details)
    if exam.run(key_type(prefix)) != "none":
        details["named_like_the_prefix"] = prefix
        problems.append(
            f"a key is named like the prefix, {prefix}: in a cluster, scripts would run on half of a moving slot"
        )
        advice.append(f"RENAME {prefix} away, or DEL it")
    lists = [key for key, kind, _ in found if kind == "list" and split_queue(key.removeprefix(prefix).encode())]
    if unseen := {key: exam.run(key_length("list", key)) for key in lists if key not in exam.status}:
        details["unregistered"] = unseen
        problems.append(f"{count(sum(unseen.values()), 'item')} in lists that are not registered: {', '.join(unseen)}")
        advice.append(f"SADD {prefix}registry {' '.join(unseen)}")
    if lost := _held_by_nobody(exam, [key for key, kind, _ in found if kind == "hash"]):
        details["held_by_nobody"] = lost
        problems.append(f"{count(sum(lost.values()), 'operation')} held by workers that are not registered")
        fields = " ".join(f"{dead(name)} 0:1000" for name in lost)
        advice.append(f"HSET {prefix}workers {fields} lets the workers take them over")
    if problems:
        return Result(Level.FAIL, "; ".join(problems), "; ".join(advice), details)
    if outer := _outer_prefixes(exam):
        problem = (
            f"the prefix lies within {', '.join(outer)}, which is in use: its users reach the keys of this one, too"
        )
        return Result(Level.WARN, problem, "use prefixes of which none begins with another", {"outer_prefixes": outer})
    return Result(
        Level.OK, "every key has its type, every list is registered, every operation in flight has its worker"
    )


def _outer_prefixes(exam: Examination) -> list[str]:
    """Return the prefixes in use with which this one begins."""
    prefix = exam.config.queue_prefix
    cuts = [prefix[: i + 1] for i, char in enumerate(prefix[:-1]) if not char.isalnum()]
    if mode_of(exam.info) == "cluster":  # where keys without the tag may lie on another node
        cuts = [cut for cut in cuts if hash_tag(cut)]
    return [outer for outer in cuts if exam.run(key_type(f"{outer}registry")) == "set"]


def _typed_keys(exam: Examination) -> Iterator[tuple[str, str, str]]:
    """Return each key that the queue knows by name, with its type and the one that it should have."""
    prefix = exam.config.queue_prefix
    cursor = "0"
    first = True
    while first or cursor != "0":
        first = False
        cursor, page = exam.run(key_page(prefix, cursor))
        known = [(key, kind) for key in page if (kind := _expected(key.removeprefix(prefix)))]
        for start in range(0, len(known), _CHUNK):
            chunk = known[start : start + _CHUNK]
            kinds = exam.shard.transport.run_many([key_type(key) for key, _ in chunk])
            yield from ((key, kind, due) for (key, due), kind in zip(chunk, kinds, strict=True) if kind != "none")


def _expected(name: str) -> str | None:
    if name.startswith(_UNTYPED):
        return None
    if split_queue(name.encode()) is not None:
        return "list"
    group, colon, _ = name.partition(":")
    return _TYPES.get(name) or (_TYPES_OF_MANY.get(group) if colon else None)


def _held_by_nobody(exam: Examination, hashes: Sequence[str]) -> dict[str, int]:
    """Return the incarnations without an entry that hold tokens, and how many."""
    start = exam.shard.keys.inflight("")
    entries = exam.look().entries
    names = [key.removeprefix(start) for key in hashes if key.startswith(start)]
    lost = [name for name in names if name not in entries and dead(name) not in entries]
    held = exam.read(inflight_flow(exam.shard, lost))
    return {name: tokens for name, tokens in held.items() if tokens}


def dead_letters(exam: Examination) -> Result:
    """Check how many operations have failed for good, and whether the oldest are being dropped."""
    config = exam.config
    most = exam.config.max_dead_letters
    counts = {"failures": exam.status[config.failures_queue], "system_errors": exam.status[config.system_errors_queue]}
    dropped = exam.status["metrics"].get("dead_letters_dropped", 0)
    details = {**counts, "max_dead_letters": most, "dropped": dropped}
    sentence = f"{count(counts['failures'], 'failure')}, {count(counts['system_errors'], 'system error')}"
    if max(counts.values()) > _NEARLY_FULL * most:
        advice = (
            "retry or drop them; beyond max_dead_letters the oldest are dropped,"
            " and what no worker can resolve stays in its queue"
        )
        return Result(Level.FAIL, f"{sentence}, of {most:,} that are kept; {dropped:,} were dropped", advice, details)
    if any(counts.values()):
        source = "failures" if counts["failures"] else "system_errors"
        return Result(Level.WARN, sentence, f"queue-system dead-letters list --source {source}", details)
    return Result(Level.OK, "no dead letters", details=details)
