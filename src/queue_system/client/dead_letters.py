"""Dead letters for an operator: list, retry, drop.

A walk goes from the newest dead letter to the oldest and counts places from the old end. So new ones, which are added
at the other end, change no place, and none is missed when others take some.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from queue_system.broker.commands import server_time
from queue_system.broker.protocol import Command, Group
from queue_system.broker.requests import MAX_REQUEST_BYTES, Place
from queue_system.broker.shard import Shard
from queue_system.client.flow import Flow
from queue_system.config import QueueConfig
from queue_system.errors import AccessDeniedError, InvalidInputError
from queue_system.model.dead_letter import (
    Acceptance,
    DeadLetter,
    Requeue,
    letter_id,
    needs_keys,
    read_dead_letter,
    read_note,
    requeue,
)
from queue_system.validation import check_choice, check_seconds, check_text, check_whole, refused, shown

__all__ = ["DeadLetter", "DeadLetterPage", "Selection", "count_flow", "drop_flow", "list_flow", "retry_flow"]

_SOURCES: Final = ("failures", "system_errors")
_MOST_LISTED: Final = 1000
_FIRST_PAGE: Final = 20
_LARGEST_PAGE: Final = 1000
_PAGE_BYTES: Final = 1024 * 1024
_MOST_PER_REQUEST: Final = 200
_PASSED_BYTES: Final = 512 * 1024 * 1024  # what one script may walk past, for all of its dead letters
_SLACK: Final = 100  # how many places a dead letter may have moved, because others took older ones, and is found
_LOOKS: Final = 3
_GONE: Final = ord("g")
_DONE: Final = ord("d")
_KEPT: Final = b'"kept_in":"'
_CURSOR: Final = re.compile(r"[0-9]{0,18}")

Entry = tuple[int, bytes]  # a place and the dead letter that was read there


class DeadLetterPage(msgspec.Struct, frozen=True):
    """Some dead letters, the newest first, and the cursor that leads on to older ones; "" at the end."""

    letters: list[DeadLetter]
    cursor: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are chosen: those for which all of this holds. None means any.

    Args:
        letter_ids: they have one of these ids.
        queue: they came from this queue; `"high:emails"` or, for all priorities, `"emails"`.
        processor: they were for this processor, `"mails.send"` or `"send"`.
        error: type and text of their error hold this, in any case.
        min_age: they failed at least this many seconds ago, by the server's clock.
        max_age: they failed at most this many seconds ago. A dead letter without a time has no age.

    Raises:
        InvalidInputError: a value is wrong.
    """

    letter_ids: Collection[str] | None = None
    queue: str | None = None
    processor: str | None = None
    error: str | None = None
    min_age: float | None = None
    max_age: float | None = None

    def __post_init__(self) -> None:
        ids: object = self.letter_ids
        if ids is not None:
            if isinstance(ids, str | bytes) or not isinstance(ids, Collection):
                raise refused("letter_ids", "a list of dead letter ids", shown(ids), "write [letter_id]")
            found = frozenset([check_text("letter_ids", each, "dead letter ids, which are text") for each in ids])
            object.__setattr__(self, "letter_ids", found)
        for name in ("queue", "processor", "error"):
            value = getattr(self, name)
            if value is not None:
                check_text(name, value)
        for name in ("min_age", "max_age"):
            if getattr(self, name) is not None:
                check_seconds(name, getattr(self, name))

    @property
    def _reads(self) -> bool:
        return any(v is not None for v in (self.queue, self.processor, self.error, self.min_age, self.max_age))

    def includes(self, dead_letter: bytes, now: float) -> bool:
        """Return whether a dead letter is meant; `now` is the server's time in Unix seconds."""
        if self.letter_ids is not None and letter_id(dead_letter) not in self.letter_ids:
            return False
        if not self._reads:
            return True
        note = read_note(dead_letter)
        priority, queue = note.where
        if self.queue is not None and self.queue not in (queue, f"{priority}:{queue}"):
            return False
        processor = note.full_processor
        if self.processor is not None and self.processor not in (processor, processor.rpartition(".")[2]):
            return False
        if self.error is not None and self.error.casefold() not in note.full_error.casefold():
            return False
        if self.min_age is self.max_age is None:
            return True
        if note.when is None:
            return False
        age = now - note.when
        return (self.min_age is None or age >= self.min_age) and (self.max_age is None or age <= self.max_age)


def list_flow(
    config: QueueConfig, source: str, selection: Selection, limit: Any = 50, cursor: Any = ""
) -> Flow[DeadLetterPage]:
    """Return up to `limit` dead letters, the newest first, that are older than those of the page that gave the cursor.

    Raises:
        InvalidInputError: the source, the limit or the cursor is wrong.
    """
    walk = _Walk(config.shard, source)
    limit = check_whole("limit", limit, 1, _MOST_LISTED)
    cursor = check_text("cursor", cursor, "the cursor of a page", _CURSOR, 'use "" to begin')
    yield from walk.begin()
    walk.left = min(walk.left, int(cursor or walk.left))
    acceptance = _acceptance(config)
    dead_letters: list[DeadLetter] = []
    while walk.left:
        for place, dead_letter in (yield from walk.read()):
            if selection.includes(dead_letter, walk.now):
                dead_letters.append(read_dead_letter(dead_letter, source, acceptance))
                if len(dead_letters) == limit:
                    return DeadLetterPage(dead_letters, str(place or ""))
        walk.advance()
    return DeadLetterPage(dead_letters, "")


def count_flow(config: QueueConfig, source: str, selection: Selection) -> Flow[int]:
    """Count the dead letters that are meant."""
    walk = _Walk(config.shard, source)
    yield from walk.begin()
    if selection == Selection():
        return walk.length
    found = 0
    while walk.left:
        for _, dead_letter in (yield from walk.read()):
            found += selection.includes(dead_letter, walk.now)
        walk.advance()
    return found


def retry_flow(config: QueueConfig, source: str, selection: Selection) -> Flow[int]:
    """Put the items of dead letters back into their queues, attempts reset; return how many.

    A dead letter stays if its item would not be taken by a worker of this configuration, or if its operation lives, has
    succeeded, or has a deduplication key that a live one holds; one warning says how many stayed.

    Raises:
        InvalidInputError: some are signed and stay, because this configuration has no keys; the others are done.
    """
    call = _Retry(config, source, selection)
    yield from call.flow()
    if call.live or call.unusable:
        config.log.warning("dead letters stay", list=source, live=call.live, not_retryable=call.unusable)
    if call.done:
        config.log.info("dead letters retried", list=source, retried=call.done)
    if call.signed:
        raise InvalidInputError(
            "signing_keys",
            f"{call.signed} of these dead letters are signed and stay, since this configuration has no keys to sign"
            " them again; give it signing_keys (on the command line, --config MODULE:OBJECT)."
            f" {call.done} others were put back",
        )
    return call.done


def drop_flow(config: QueueConfig, source: str, selection: Selection) -> Flow[int]:
    """Drop dead letters for good; return how many."""
    call = _Drop(config, source, selection)
    yield from call.flow()
    if call.done:
        config.log.info("dead letters dropped", list=source, dropped=call.done)
    return call.done


def _acceptance(config: QueueConfig) -> Acceptance:
    return Acceptance(config.max_item_bytes, config.signer, config.cipher)


class _Walk:
    """A walk through a list of dead letters, page by page, from the newest to the oldest."""

    def __init__(self, shard: Shard, source: object) -> None:
        self.source = check_choice("source", source, _SOURCES)
        self.length = self.left = 0
        """How many dead letters there are, and how many are still to be looked at."""
        self.now = 0.0
        self.size = _FIRST_PAGE
        self.average = 1
        self._commands = shard.commands

    def begin(self) -> Flow[None]:
        """Stand at the newest dead letter."""
        self.length, self.now = yield Group((self._commands.count_dead_letters(self.source), server_time()))
        self.left = self.length

    def read(self) -> Flow[list[Entry]]:
        """Return the dead letters of the page at which it stands, the newest first, each with its place."""
        dead_letters = yield self._commands.dead_letters(self.source, -self.left, -self.end - 1)
        if dead_letters:
            self.average = max(1, sum(map(len, dead_letters)) // len(dead_letters))
        return [(self.end + len(dead_letters) - 1 - i, dead_letter) for i, dead_letter in enumerate(dead_letters)]

    def most_from(self, place: int) -> int:
        """Return how many one script may take there: each costs the way from the nearer end of the list."""
        way = min(place, max(0, self.length - place)) * self.average
        return max(1, min(_MOST_PER_REQUEST, _PASSED_BYTES // (way + 1)))

    @property
    def end(self) -> int:
        """The place of the oldest dead letter of the page, which is how many are older."""
        return max(0, self.left - self.size)

    def advance(self) -> None:
        """Go to the next page, which is as large as the size of the dead letters allows."""
        self.left = self.end
        self.size = max(1, min(self.size * 8, _LARGEST_PAGE, _PAGE_BYTES // self.average))


class _Found(msgspec.Struct, frozen=True, gc=False):
    """A dead letter that is meant, its place, and what it becomes again if it is to be retried."""

    place: int
    dead_letter: bytes
    requeue_of: Requeue | None = None


class _Drop:
    """One call of an operator. Its requests are numbered, so that each may be sent twice."""

    def __init__(self, config: QueueConfig, source: str, selection: Selection) -> None:
        self._selection = selection
        self._shard = config.shard
        self._walk = _Walk(self._shard, source)
        self._missing = None if selection.letter_ids is None else set(selection.letter_ids)
        self._id = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self.done = self.live = self.unusable = 0

    def flow(self) -> Flow[None]:
        """Take all dead letters that are meant and were there when the call began."""
        walk = self._walk
        yield from walk.begin()
        while walk.left and self._missing != set():
            page = yield from walk.read()
            gone = yield from self._take([entry for entry in page if self._chooses(entry[1])])
            for _ in range(_LOOKS):
                if not gone:
                    break
                page = yield from walk.read()  # others change the list, too, so some may be elsewhere by now
                gone = yield from self._take([entry for entry in page if entry[1] in gone])
            if self._missing is not None:
                self._missing.update(map(letter_id, gone))
            walk.advance()

    def _chooses(self, dead_letter: bytes) -> bool:
        if not self._selection.includes(dead_letter, self._walk.now):
            return False
        if self._missing is not None:
            if (id_ := letter_id(dead_letter)) not in self._missing:
                return False  # one of equal dead letters is enough
            self._missing.discard(id_)
        return True

    def _take(self, entries: list[Entry]) -> Flow[set[bytes]]:
        """Take dead letters, given the newest first; return those that were not near their places."""
        found = [each for place, dead_letter in entries if (each := self._find(place, dead_letter)) is not None]
        gone: set[bytes] = set()
        for chunk in self._split(found):
            lowest = max(0, chunk[-1].place - min(_SLACK, self._walk.size))
            place = Place(self._walk.source, self._id, next(self._numbers), lowest, chunk[0].place)
            chunk.reverse()  # the oldest is to run first
            codes = yield self._request(place, chunk)
            done = codes.count(b"d")
            self.done += done
            self._walk.length -= done
            yield from self._forget(each.dead_letter for each, code in zip(chunk, codes, strict=True) if code == _DONE)
            self.live += codes.count(b"l")
            gone.update(each.dead_letter for each, code in zip(chunk, codes, strict=True) if code == _GONE)
        return gone

    def _forget(self, dropped: Iterable[bytes]) -> Flow[None]:
        """Delete what was kept of items that were too large to be sent; a user who may not do so lets them expire."""
        keys = [read_note(dead_letter).kept_key for dead_letter in dropped if _KEPT in dead_letter]
        if keys := [key for key in keys if self._shard.keys.is_oversized(key)]:
            with contextlib.suppress(AccessDeniedError):
                yield self._shard.commands.forget_oversized(keys)

    def _split(self, found: list[_Found]) -> Iterator[list[_Found]]:
        """Split dead letters so that no script takes long and no request is too large."""
        chunk: list[_Found] = []
        size = 0
        for each in found:
            most = self._walk.most_from(each.place)
            if chunk and (len(chunk) >= most or size + len(each.dead_letter) > MAX_REQUEST_BYTES // 2):
                yield chunk
                chunk = []
                size = 0
            chunk.append(each)
            size += len(each.dead_letter)
        if chunk:
            yield chunk

    def _find(self, place: int, dead_letter: bytes) -> _Found | None:
        return _Found(place, dead_letter)

    def _request(self, place: Place, chunk: list[_Found]) -> Command[bytes]:
        return self._shard.commands.drop(place, [each.dead_letter for each in chunk])


class _Retry(_Drop):
    """A call that puts the dead letters' items back into their queues."""

    def __init__(self, config: QueueConfig, source: str, selection: Selection) -> None:
        super().__init__(config, source, selection)
        self._nonce = secrets.token_hex(8)
        self._dedup_ttl_ms = int(config.dedup_ttl * 1000)
        self._acceptance = _acceptance(config)
        self.signed = 0

    def _find(self, place: int, dead_letter: bytes) -> _Found | None:
        requeue_of = requeue(dead_letter, self._nonce, self._acceptance, due=self._walk.now)
        if requeue_of is not None:
            return _Found(place, dead_letter, requeue_of)
        self.unusable += 1
        self.signed += needs_keys(read_note(dead_letter), self._acceptance.signer)
        return None

    def _request(self, place: Place, chunk: list[_Found]) -> Command[bytes]:
        requeues = [each.requeue_of for each in chunk if each.requeue_of is not None]
        return self._shard.commands.retry(place, self._nonce, self._dedup_ttl_ms, requeues)
