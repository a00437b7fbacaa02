"""What the server's replies mean, as typed values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from queue_system.model.formats import is_number, split_rest, whole_ms

_LATER = 3
"""How many members a later page of the status has beside the lists."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim brought. Each of `values` is a queue, a line feed and an item, or None for one settled meanwhile."""

    now_ms: int
    next_due_ms: int
    more: bool
    wrong_keys: tuple[bytes, ...]
    first_token: int
    values: Sequence[bytes | None]
    left_behind: bool = False
    """Whether nothing is left but what the claim was to leave out."""
    largest: int = 0
    """The size of the largest item among them."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """The answer to a beat: is the incarnation registered, what does it hold, how many incarnations are there."""

    alive: bool
    tokens: int
    incarnations: int


@dataclass(frozen=True, slots=True)
class Resting:
    """A queue that a worker leaves alone, until which ms of the server's time, and why."""

    queue: str
    worker: str
    until_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class StatusPage:
    """A page of list lengths and of workers; the other members come with the first page only.

    `running` is how many operations the workers of the page hold, `workers` how many of them live.
    """

    cursor: str
    lists: dict[str, int]
    failures: int = 0
    system_errors: int = 0
    delayed: int = 0
    running: int = 0
    now_ms: int = 0
    counters: dict[str, int] | None = None
    workers: int = 0
    resting: Sequence[Resting] = ()
    workers_cursor: str = "0"


@dataclass(frozen=True, slots=True)
class RecordReply:
    """The record of an operation, or b"", the server's time, and the last change that was announced."""

    record: bytes
    now_ms: int
    last_change: str


def identity(reply: Any) -> Any:
    """Return a reply as it came."""
    return reply


def first(reply: Any) -> Any:
    """Return the first member."""
    return reply[0]


def parse_enqueued(reply: Any) -> Any:
    """Read one answer for each operation."""
    return [1] * reply if isinstance(reply, int) else reply


def parse_claim(reply: Any) -> Claimed | None:
    """Read a claim; None: the incarnation is unregistered."""
    if len(reply) == 1:
        return None
    _, now_ms, next_due_ms, more, wrong, first_token, largest = reply[:7]
    return Claimed(now_ms, next_due_ms, more == 1, tuple(wrong), first_token, reply[7:], more == 2, largest)  # noqa: PLR2004


def parse_pulse(reply: Any) -> Pulse:
    """Read the answer to a beat."""
    alive, tokens, incarnations = reply
    return Pulse(alive == 1, tokens, incarnations)


def parse_sweep(reply: Any) -> tuple[str, int]:
    """Read the next cursor and how many lists were found."""
    return reply[0].decode(), reply[1]


def parse_status(reply: Any) -> StatusPage:
    """Read a page of lengths and of workers."""
    lists = {key.decode(errors="replace"): length for key, length in _pairs(reply[1])}
    cursor, _, *rest = reply
    if len(rest) == _LATER:
        workers_cursor, running, workers = rest
        return StatusPage(
            cursor.decode(), lists, running=running, workers=workers, workers_cursor=workers_cursor.decode()
        )
    failures, system_errors, delayed, running, now_ms, flat, workers, *more = rest
    counters = {name.decode(errors="replace"): int(value) for name, value in _pairs(flat) if is_number(value)}
    notes = more[0] if more else ()
    workers_cursor = more[1] if len(more) > 1 else b"0"
    return StatusPage(
        cursor.decode(), lists, failures, system_errors, delayed, running, now_ms, counters, workers,
        [_read_resting(note, until) for note, until in _pairs(notes)], workers_cursor.decode(),
    )  # fmt: skip


def _read_resting(note: bytes, until: bytes) -> Resting:
    queue, worker, reason = split_rest(note)
    return Resting(queue, worker, whole_ms(until), reason)


def parse_record_reply(reply: Any) -> RecordReply:
    """Read what a look found."""
    return RecordReply(reply[0], reply[1], reply[2].decode())


def parse_incarnations(reply: Any) -> dict[str, bytes]:
    """Read incarnations and their entries."""
    return {field.decode(errors="replace"): entry for field, entry in _pairs(reply)}


def parse_sign(reply: Any) -> bytes:
    """Read a sign; b"" where there is none."""
    return reply or b""


def parse_held(reply: Any) -> tuple[str, dict[bytes, bytes | None]]:
    """Read the next cursor and a page of tokens with their values."""
    return reply[0].decode(), dict(_pairs(reply[1]))


def parse_tokens(reply: Any) -> list[int]:
    """Read tokens, fields of other kinds left out."""
    return [int(token) for token in reply if is_number(token)]


def parse_delayed(reply: Any) -> tuple[str, list[bytes]]:
    """Read the next cursor and a page of members."""
    return reply[0].decode(), reply[1][::2]


def parse_info(reply: Any) -> dict[str, str]:
    """Read the server's description of itself."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines() if ":" in line)
    return {name: value for name, _, value in lines}


def parse_time(reply: Any) -> float:
    """Read Unix seconds."""
    return int(reply[0]) + int(reply[1]) / 1_000_000


def parse_setting(reply: Any) -> dict[str, str]:
    """Read settings."""
    return {name.decode(): value.decode(errors="replace") for name, value in _pairs(reply)}


def _pairs(flat: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
