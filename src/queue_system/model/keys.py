"""The names of everything in Redis, and the rules for names that users choose. Never talks to Redis."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from queue_system.validation import check_choice, check_text

PRIORITIES: Final = ("high", "normal", "low")
"""The priorities, in the order in which they are served."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_NAME_TEXT: Final = "1 to 128 of the characters A-Z a-z 0-9 _ . -"
_PREFIX = re.compile(r"[A-Za-z0-9_.:{}/-]{1,128}")
_QUEUE = re.compile(rb"(high|normal|low):([A-Za-z0-9_.-]{1,128})\Z")
_IDENTIFIER = re.compile(r'[^"\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,256}')
_IDENTIFIER_TEXT: Final = "1 to 256 characters without quotes, backslashes, control characters and lone surrogates"


def check_priority(priority: object) -> str:
    """Return `priority`, or raise InvalidInputError unless it is one of `PRIORITIES`."""
    return check_choice("priority", priority, PRIORITIES)


def check_queue_name(name: object, field: str = "queue_name") -> str:
    """Return `name`, or raise InvalidInputError unless it is 1 to 128 of the characters `A-Z a-z 0-9 _ . -`."""
    return check_text(field, name, f"the name of a queue: {_NAME_TEXT}", _NAME)


def check_identifier(value: object, field: str) -> str:
    """Return an operation id or deduplication key; raise InvalidInputError if a script could misread it."""
    return check_text(field, value, _IDENTIFIER_TEXT, _IDENTIFIER)


def check_prefix(prefix: object) -> str:
    """Return the key prefix, or raise InvalidInputError if it is empty, too long or holds unusual characters."""
    return check_text("queue_prefix", prefix, "1 to 128 of the characters A-Z a-z 0-9 _ . : / { } -", _PREFIX)


def hash_tag(prefix: str) -> str:
    """Return the part of a prefix that alone decides the slot of its keys in a cluster; "" if there is none."""
    _, _, rest = prefix.partition("{")
    tag, closing, _ = rest.partition("}")
    return tag if closing else ""


def queue_name_from(function_name: str) -> str:
    """Turn a function's name into a queue name: `<lambda>` becomes `lambda`, other foreign characters become `_`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", function_name.strip("<>"))[:128] or "_"


def join_queue(priority: object, name: object) -> str:
    """Return `"high:NAME"`, or raise InvalidInputError as `check_priority` and `check_queue_name` do."""
    if type(priority) is str and type(name) is str:
        return _join_known(priority, name)
    return f"{check_priority(priority)}:{check_queue_name(name)}"


@lru_cache(maxsize=1024)
def _join_known(priority: str, name: str) -> str:
    return f"{check_priority(priority)}:{check_queue_name(name)}"


def split_queue(queue: bytes) -> tuple[str, str] | None:
    """Split `b"high:NAME"` into priority and name; None when it is not of that form."""
    match = _QUEUE.match(queue)
    return (match[1].decode(), match[2].decode()) if match else None


def queue_name(queue: bytes) -> str:
    """Return the name in `b"high:NAME"`."""
    return queue.partition(b":")[2].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys under one prefix. Each is described in docs/redis-keys.md."""

    prefix: str

    def queue(self, priority: str, name: str) -> str:
        """Return the list of ready items of one queue."""
        return f"{self.prefix}{priority}:{name}"

    def operation(self, operation_id: str) -> str:
        """Return the record of one operation."""
        return f"{self.prefix}operation:{operation_id}"

    def change(self, operation_id: str) -> str:
        """Return the stream that announces to those who wait that an operation's record has changed."""
        return f"{self.prefix}change:{operation_id}"

    def inflight(self, incarnation: str) -> str:
        """Return the hash of what one incarnation holds."""
        return f"{self.prefix}inflight:{incarnation}"

    def wake(self, name: str | None = None) -> str:
        """Return the wake-up marker for workers of all queues, or of the queue `name`."""
        return f"{self.prefix}wake" if name is None else f"{self.prefix}wake:{name}"

    def is_oversized(self, key: str) -> bool:
        """Return whether a key is one under which a script keeps an item that is too large to be sent."""
        return key.startswith(f"{self.prefix}oversized:") and key.removeprefix(f"{self.prefix}oversized:").isdecimal()

    @property
    def drained(self) -> str:
        """The names of queues that are empty, by when that was seen first since their last use."""
        return f"{self.prefix}drained"

    @property
    def registry(self) -> str:
        """The set of all lists of ready items."""
        return f"{self.prefix}registry"

    @property
    def delayed(self) -> str:
        """The sorted set of items that are due later."""
        return f"{self.prefix}delayed"

    @property
    def workers(self) -> str:
        """The hash of registered incarnations."""
        return f"{self.prefix}workers"

    @property
    def resting(self) -> str:
        """The sorted set of the queues that workers leave alone."""
        return f"{self.prefix}resting"

    @property
    def watched(self) -> str:
        """The last sign that somebody watches the workers."""
        return f"{self.prefix}watched"

    @property
    def metrics(self) -> str:
        """The hash of the fleet's counters."""
        return f"{self.prefix}metrics"

    @property
    def failures(self) -> str:
        """The list of operations that failed for good."""
        return f"{self.prefix}failures"

    @property
    def system_errors(self) -> str:
        """The list of items that could not be processed at all."""
        return f"{self.prefix}system_errors"
