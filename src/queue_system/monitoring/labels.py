"""The labels that distinguish one fleet's metrics from another's, and what no label may hold. Connects to nothing."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeVar

from queue_system.config import QueueConfig

T = TypeVar("T")

SERVER_NAME: Final = "QUEUE_SYSTEM_SERVER_NAME"
"""The environment variable that names the server in metrics, where its users reach it under several addresses."""

EVENTS: Final = (
    "enqueued", "processed", "failed", "retried", "rejected", "system_errors", "reclaimed", "purged",
    "dead_letters_dropped", "dead_letters_retried", "queue_rests",
)  # fmt: skip
"""What the scripts count. Each is shown from the beginning, as 0: an alert notices a rise, no first appearance."""

_MOST_OTHERS: Final = 20
_EVENT: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_MOST_CIRCUITS: Final = 100
_HERE: Final = re.compile(r"unix:|embedded:|redis://(localhost|127\.|::1|\[::1)")


class Place(NamedTuple):
    """Where a fleet lives; the names are those of its labels."""

    server: str
    prefix: str


NOWHERE: Final = Place("", "")


def place_of(config: QueueConfig) -> Place:
    """Return the server and the prefix of a configuration. An address that means another server elsewhere names us."""
    named = os.environ.get(SERVER_NAME, "")
    address = named or config.address
    if not named and _HERE.match(address):
        address = f"{address} on {socket.gethostname()}"
    return Place(address, config.queue_prefix)


def events_of(counters: Mapping[str, int]) -> dict[str, int]:
    """Return all known events, at 0 where they did not happen, and a few others: anybody may write into that hash."""
    others = sorted(name for name in counters.keys() - set(EVENTS) if _EVENT.match(name))[:_MOST_OTHERS]
    return {name: counters.get(name, 0) for name in (*EVENTS, *others)}


def circuits_shown(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each circuit's name and its label: an application may have one for each of its customers."""
    for n, name in enumerate(sorted(names)):
        yield name, name if n < _MOST_CIRCUITS or name == "redis" else "other"
