"""Every transition as a typed command: script, arguments, reply. Pure; a transport runs them.

All but the plain reads carry an id of their own (nonce, claim id, settlement id, token): sending one again is safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from queue_system.broker.protocol import Argument, Command, Script, load_script, pack, pack_names, plain
from queue_system.broker.replies import (
    Claimed,
    Pulse,
    RecordReply,
    StatusPage,
    first,
    identity,
    parse_claim,
    parse_delayed,
    parse_enqueued,
    parse_held,
    parse_incarnations,
    parse_info,
    parse_pulse,
    parse_record_reply,
    parse_setting,
    parse_sign,
    parse_status,
    parse_sweep,
    parse_time,
    parse_tokens,
)
from queue_system.broker.requests import MAX_ITEMS, MAX_REQUEST_BYTES, NewOperation, Place, Reclaim
from queue_system.model.dead_letter import Requeue
from queue_system.model.formats import dead
from queue_system.model.keys import PRIORITIES, Keys

SCRIPTS: Final[dict[str, Script]] = {
    name: load_script(name)
    for name in (
        "enqueue",
        "claim",
        "settle",
        "beat",
        "declare_dead",
        "reclaim",
        "sweep",
        "forget_names",
        "purge",
        "status",
        "aged",
        "held",
        "trim",
        "get_record",
        "oldest",
        "retry",
        "drop",
        "rest",
        "watch",
        "orphans",
    )
}
_LONGEST_MS: Final = 10**12


class Commands:
    """Builds the commands for one key prefix."""

    def __init__(
        self, keys: Keys, max_dead_letters: int, *, most_sent: int = MAX_REQUEST_BYTES, kept_ms: int = 604_800_000
    ) -> None:
        self.keys = keys
        self._max_dead_letters = max_dead_letters
        self._most_sent = most_sent
        """How many bytes of one item the server sends; a larger one is kept there, for `_kept_ms`."""
        self._kept_ms = kept_ms
        self.write_many = ""
        """The command that writes many keys with one lifetime; empty where the server is not known to have one."""
        self._prefix = pack((keys.prefix,))

    def _script(self, name: str, parse: Any, *arguments: Argument, packed: bytes = b"", count: int = 0) -> Command[Any]:
        body = self._prefix + pack(arguments) + packed
        return Command(name, SCRIPTS[name], 1 + len(arguments) + count, body, parse)

    def enqueue(
        self,
        queue: str,
        nonce: str,
        operations: Sequence[NewOperation],
        *,
        delay_ms: int = 0,
        dedup_ttl_ms: int,
        record_ttl_ms: int = _LONGEST_MS,
    ) -> Command[list[int | bytes]]:
        """Add operations to one queue. Reply: 1 queued, 0 id taken, or the id that holds the deduplication key.

        `record_ttl_ms` is how long their records stay once they are finished: it is not sent again when these may be
        gone.
        """
        keyed = False
        for operation in operations:
            if operation.deduplication_key:
                keyed = True
                break
        parts = [_pack_queue(self.keys.prefix, queue, delay_ms, dedup_ttl_ms if keyed else None)]
        parts.append(b"$%d\r\n%b\r\n" % (len(nonce), nonce.encode()))
        for operation in operations:  # no calls: this is most of a batch's work
            operation_id = operation.operation_id.encode()
            item = operation.item
            parts.append(b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(operation_id), operation_id, len(item), item))
            if keyed:
                parts.append(pack((operation.deduplication_key,)))
        count = 6 + (3 if keyed else 2) * len(operations)
        within_s = (delay_ms + record_ttl_ms / 2) / 1000
        return Command("enqueue", SCRIPTS["enqueue"], count, b"".join(parts), parse_enqueued, resend_within_s=within_s)

    def claim(
        self,
        incarnation: str,
        claim_id: str,
        wanted: int,
        names: Sequence[str] = (),
        *,
        adopt: bytes = b"",
        expected: int = 0,
    ) -> Command[Claimed | None]:
        """Move up to `wanted` items in flight, or the one given as `adopt`. None: the incarnation is unregistered.

        `names` are those served, all if there are none, or those left out, each behind a "!". `expected` is the size of
        the largest item that may come: a guess, by which few are read at once.
        """
        limits = (expected, self._most_sent, self._kept_ms)
        packed = pack_names(tuple(names))
        return self._script(
            "claim", parse_claim, incarnation, claim_id, wanted, adopt, *limits, packed=packed, count=len(names)
        )

    def settle(self, incarnation: str, settlement_id: str, packed: bytes, count: int) -> Command[bytes]:
        """Settle deliveries, given as `count` packed arguments. Reply: a code each, or b"lost"."""
        fixed = (incarnation, settlement_id, self._max_dead_letters, self.write_many)
        return self._script("settle", identity, *fixed, packed=packed, count=count)

    def rest(self, worker: str, notes: Sequence[tuple[str, int, str]]) -> Command[int]:
        """Note queues that a worker leaves alone: name, for how many ms (0: no longer), why. Reply: how many."""
        flat = [argument for note in notes for argument in note]
        return self._script("rest", int, worker, *flat)

    def beat(self, mode: str, incarnation: str, lease_ms: int, told: bytes = b"") -> Command[Pulse]:
        """Register (`"register"`), beat (`"beat"`) or sign off (`"leave"`), and report on the worker (`Presence`)."""
        return self._script("beat", parse_pulse, mode, incarnation, lease_ms, told)

    def declare_dead(self, incarnation: str, observed: bytes) -> Command[bool]:
        """Declare an incarnation dead if its entry still is the observed one."""
        return self._script("declare_dead", bool, incarnation, observed)

    def reclaim(self, incarnation: str, reclaims: Iterable[Reclaim]) -> Command[list[int]]:
        """Move items of a dead incarnation. Reply: how many moved, how many tokens are left."""
        flat: list[Argument] = []
        for r in reclaims:
            flat += (r.token, r.old, r.how, r.new, r.operation_id, r.record, r.record_ttl_ms, r.deduplication_key)
            flat.append(r.follow_up)
        return self._script("reclaim", identity, incarnation, self._max_dead_letters, *flat)

    def sweep(self, cursor: str, interval_ms: int) -> Command[tuple[str, int]]:
        """Index lists that a foreign client filled. Reply: next cursor and how many were found."""
        return self._script("sweep", parse_sweep, cursor, interval_ms)

    def forget_names(self, cursor: str, interval_ms: int, after_ms: int) -> Command[tuple[str, int]]:
        """Forget names of queues that were not used for long. Reply: next cursor and how many went."""
        return self._script("forget_names", parse_sweep, cursor, interval_ms, after_ms)

    def purge(self, queue: str, delayed: Sequence[bytes] = (), *, call_id: str = "", number: int = 0) -> Command[int]:
        """Remove up to 1,000 items of a queue's list, or members of the delayed set; `call_id` and `number` name it."""
        return self._script("purge", int, queue, f"#{call_id} {number}" if call_id else "", *delayed)

    def status(self, cursor: str, workers: str = "0") -> Command[StatusPage]:
        """Read a page of list lengths and of workers: a cursor for each, "0" for the first page, "" for no more."""
        return self._script("status", parse_status, cursor, workers)

    def get_record(self, operation_id: str, waits_ms: int | None = None) -> Command[RecordReply]:
        """Read the record of an operation, and note that somebody waits for its next change."""
        return self._script("get_record", parse_record_reply, operation_id, "" if waits_ms is None else waits_ms)

    def wait_for_change(self, operation_id: str, after: str, within_ms: int) -> Command[bool]:
        """Block until a change later than `after` is announced, for at most `within_ms`. Reply: whether one was."""
        stream = self.keys.change(operation_id)
        return plain(bool, "XREAD", "COUNT", 1, "BLOCK", within_ms, "STREAMS", stream, after, blocks=True)

    def oldest(self, lists: Sequence[str]) -> Command[list[bytes | None]]:
        """Read the item that each list serves next, of a large one its end only. None: the list is empty."""
        return self._script("oldest", identity, *lists)

    def aged(self, source: str, passed: int) -> Command[list[bytes]]:
        """Read some of the oldest dead letters, the oldest first, behind those passed over; of a large one the end."""
        return self._script("aged", identity, source, passed)

    def trim(self, source: str, dead_letters: Iterable[tuple[int, bytes]]) -> Command[int]:
        """Drop dead letters from the old end of `failures` or `system_errors`, each with how many older ones stay."""
        flat = [argument for dead_letter in dead_letters for argument in dead_letter]
        return self._script("trim", int, source, *flat)

    def drop(self, place: Place, dead_letters: Sequence[bytes]) -> Command[bytes]:
        """Drop dead letters. Reply: b"d" done or b"g" gone, for each."""
        return self._script("drop", identity, *_flat(place), *dead_letters)

    def retry(self, place: Place, nonce: str, dedup_ttl_ms: int, requeues: Sequence[Requeue]) -> Command[bytes]:
        """Move dead letters back into their queues. Reply for each: b"d" done, b"g" gone, b"l" it lives."""
        flat: list[Argument] = []
        for r in requeues:
            flat += (r.dead_letter, r.queue, r.item, r.operation_id, r.deduplication_key, r.untold)
        return self._script("retry", identity, *_flat(place), dedup_ttl_ms, nonce, *flat)

    def forget_oversized(self, names: Sequence[str]) -> Command[int]:
        """Delete the bytes of items that were too large to be sent, kept under these keys."""
        return plain(int, "DEL", *names)

    def count_dead_letters(self, source: str) -> Command[int]:
        """Count the dead letters of a list."""
        return plain(int, "LLEN", self.keys.prefix + source)

    def wait_for_wake(self, names: Sequence[str], seconds: float) -> Command[bool]:
        """Block until a wake-up marker comes, for at most `seconds`. Reply: whether one came."""
        keys = [self.keys.wake(name) for name in names] or [self.keys.wake()]
        return plain(bool, "BZPOPMIN", *keys, f"{seconds:.3f}", blocks=True)

    def register_queues(self, names: Sequence[str]) -> Iterator[Command[int]]:
        """Add the lists of some queues to the registry, so that a foreign LPUSH to them is noticed, and keep them."""
        for start in range(0, len(names), MAX_ITEMS // 3):
            some = names[start : start + MAX_ITEMS // 3]
            lists = [self.keys.queue(priority, name) for name in some for priority in PRIORITIES]
            yield plain(int, "SADD", self.keys.registry, *lists)
            yield plain(int, "ZREM", self.keys.drained, *some)

    def count_confirmed(self, operations: int) -> Command[int]:
        """Count operations whose durability is waited for: a write after theirs, for which a server can wait."""
        return plain(int, "HINCRBY", self.keys.metrics, "confirmed", operations)

    def incarnations(self) -> Command[dict[str, bytes]]:
        """Read all registered and dead incarnations with their entries."""
        return plain(parse_incarnations, "HGETALL", self.keys.workers)

    def watch(self, sign: str) -> Command[dict[str, bytes]]:
        """Do what `incarnations` does, and leave a sign, if it is not empty, that somebody watches."""
        return self._script("watch", parse_incarnations, sign)

    def watched(self) -> Command[bytes]:
        """Read the last sign that somebody watches."""
        return plain(parse_sign, "GET", self.keys.watched)

    def orphans(self, cursor: str = "", incarnations: Sequence[str] = ()) -> Command[tuple[str, int]]:
        """Declare dead those that hold something and have no entry: of a page of all incarnations, or of those given.

        Reply: the next cursor and how many were found.
        """
        return self._script("orphans", parse_sweep, cursor, *incarnations)

    def forget(self, incarnation: str) -> Command[int]:
        """Remove the entry of a dead incarnation."""
        return plain(int, "HDEL", self.keys.workers, dead(incarnation))

    def held(self, incarnation: str, cursor: str = "0") -> Command[tuple[str, dict[bytes, bytes | None]]]:
        """Read a page of what an incarnation holds; None instead of what is too large to be sent."""
        return self._script("held", parse_held, incarnation, cursor, self._most_sent)

    def tokens(self, incarnation: str) -> Command[list[int]]:
        """Read the tokens that an incarnation holds."""
        return plain(parse_tokens, "HKEYS", self.keys.inflight(incarnation))

    def delayed_page(self, cursor: str, count: int) -> Command[tuple[str, list[bytes]]]:
        """Read a page of about `count` members of the delayed set."""
        return plain(parse_delayed, "ZSCAN", self.keys.delayed, cursor, "COUNT", count)

    def dead_letters(self, source: str, start: int, stop: int) -> Command[list[bytes]]:
        """Read dead letters by position."""
        return plain(identity, "LRANGE", self.keys.prefix + source, start, stop)


def wait_for_disk(within_ms: int) -> Command[int]:
    """Wait until the connection's last write is in the synced append-only file. Reply: 1, or 0 after `within_ms`."""
    return plain(first, "WAITAOF", 1, 0, within_ms, blocks=True)


def wait_for_replica(within_ms: int) -> Command[int]:
    """Wait until one replica has the connection's last write. Reply: how many have it."""
    return plain(int, "WAIT", 1, within_ms, blocks=True)


def ping() -> Command[bytes]:
    """Ask whether the server answers."""
    return plain(identity, "PING")


def server_info(section: str = "server") -> Command[dict[str, str]]:
    """Read a section of the server's own description."""
    return plain(parse_info, "INFO", section)


def server_time() -> Command[float]:
    """Read the server's clock, in Unix seconds."""
    return plain(parse_time, "TIME")


def server_setting(name: str) -> Command[dict[str, str]]:
    """Read a setting of the server."""
    return plain(parse_setting, "CONFIG", "GET", name)


@lru_cache(maxsize=1024)
def _pack_queue(prefix: str, queue: str, delay_ms: int, dedup_ttl_ms: int | None) -> bytes:
    """Pack the arguments that the calls for one queue have in common."""
    priority, _, name = queue.partition(":")
    return pack((prefix, priority, name, delay_ms, "" if dedup_ttl_ms is None else dedup_ttl_ms))


def _flat(place: Place) -> tuple[Argument, ...]:
    return place.source, place.call_id, place.number, place.lowest, place.highest
