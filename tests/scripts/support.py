"""Runs the scripts through the typed commands, and reads all they left behind. Never fakes a reply."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import pytest

from queue_system.broker.commands import Commands
from queue_system.broker.connection import Endpoint
from queue_system.broker.protocol import Argument, Command, pack
from queue_system.broker.replies import Claimed
from queue_system.broker.requests import NewOperation
from queue_system.broker.routes import Route
from queue_system.broker.sync import SyncTransport
from queue_system.errors import WrongKeyTypeError
from queue_system.model.keys import Keys
from tests.kit.servers import OwnServer

T = TypeVar("T")
Group = tuple[str, int, Sequence[Sequence[Argument]]]
"""Settlements of one verb: verb, lifetime of the record in ms, and the arguments of each."""

DEDUP_TTL_MS: Final = 60_000
LEASE_MS: Final = 15_000
RESULT_TTL_MS: Final = 90_000
W: Final = "w1"
"""The incarnation that most tests use."""
SQUATTER: Final = b"squatter"
_ID = re.compile(rb'"operation_id":"([^"]+)"')


def item_of(operation_id: str) -> bytes:
    """Return an item as a manager writes it."""
    return b'{"operation_id":"%b","entity":1,"processor":"p"}' % operation_id.encode()


def value_of(queue: str, operation_id: str) -> bytes:
    """Return an item as it lies in flight."""
    return b"%b\n%b" % (queue.encode(), item_of(operation_id))


def record_of(status: str, queue: str, *, touched_ms: int = 0, nonce: str = "", key: str = "") -> bytes:
    """Return a record as a worker writes it."""
    return f"{status}\t{nonce}\t{touched_ms}\t{queue}\t{key}\t1\t0\t0\tw\n".encode()


class Broker:
    """The scripts under one key prefix of a real server."""

    def __init__(self, server: OwnServer, prefix: str, max_dead_letters: int = 100_000) -> None:
        self.keys = Keys(prefix)
        self.commands = Commands(self.keys, max_dead_letters)
        self.client = server.client()
        self.transport = SyncTransport(Route(lambda: Endpoint(self.client.connection_pool, 5.0)), 0)

    def close(self) -> None:
        self.transport.close()
        self.client.close()

    def run(self, command: Command[T]) -> T:
        return self.transport.run(command)

    def enqueue(
        self,
        queue: str,
        *ids: str,
        nonce: str = "n",
        key: str = "",
        delay_ms: int = 0,
        dedup_ttl_ms: int = DEDUP_TTL_MS,
    ) -> list[int | bytes]:
        """Enqueue one operation for each id, all under one deduplication key."""
        new = [NewOperation(operation_id, item_of(operation_id), key) for operation_id in ids]
        return self.run(self.commands.enqueue(queue, nonce, new, delay_ms=delay_ms, dedup_ttl_ms=dedup_ttl_ms))

    def register(self, *incarnations: str) -> None:
        for incarnation in incarnations:
            assert self.run(self.commands.beat("register", incarnation, LEASE_MS)).alive

    def claim(
        self, wanted: int = 1, names: Sequence[str] = (), *, claim_id: str = "", by: str = W, adopt: bytes = b""
    ) -> Claimed:
        """Claim for a registered incarnation; without a claim id of its own the claim is a new one."""
        claim_id = claim_id or f"c{self.client.incr(self.counter)}"
        claimed = self.run(self.commands.claim(by, claim_id, wanted, names, adopt=adopt))
        assert claimed is not None, f"{by} is not registered"
        return claimed

    def settle(self, settlement_id: str, *groups: Group, by: str = W) -> bytes:
        """Settle; the reply has a letter for each delivery."""
        packed, count = b"", 0
        for verb, ttl_ms, deliveries in groups:
            packed += pack((verb, ttl_ms, len(deliveries))) + b"".join(pack(delivery) for delivery in deliveries)
            count += 3 + sum(map(len, deliveries))
        return self.run(self.commands.settle(by, settlement_id, packed, count))

    def settle_one(self, verb: str, *delivery: Argument, by: str = W, ttl_ms: int = RESULT_TTL_MS) -> bytes:
        """Settle one delivery under a new settlement id."""
        return self.settle(f"s{self.client.incr(self.counter)}", (verb, ttl_ms, [delivery]), by=by)

    def add_dead_letter(self, incarnation: str = W) -> None:
        entry = self.run(self.commands.incarnations())[incarnation]
        assert self.run(self.commands.declare_dead(incarnation, entry))

    @property
    def counter(self) -> str:
        """A counter of the tests' own, outside the prefix."""
        return f"{self.keys.prefix[:-1]}-tests"

    def items(self, queue: str) -> list[str]:
        """Return the ids that wait in a list, the next one first."""
        waiting: list[Any] = self.client.lrange(self.keys.prefix + queue, 0, -1)
        return ids_in(waiting[::-1])

    def inflight(self, incarnation: str = W) -> dict[int, bytes]:
        """Return what an incarnation holds, by token."""
        held: dict[Any, Any] = self.client.hgetall(self.keys.inflight(incarnation))
        return {int(token): value for token, value in held.items() if token.isdigit()}

    def score(self, key: str, member: str | bytes = "r") -> float | None:
        """Return a member's score in a sorted set under the prefix."""
        score: float | None = self.client.zscore(self.keys.prefix + key, member)
        return score

    def now_ms(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def make_due(self) -> None:
        """Let everything in the delayed set be due, in its order."""
        members: list[Any] = self.client.zrange(self.keys.delayed, 0, -1)
        if members:
            self.client.zadd(self.keys.delayed, {member: i for i, member in enumerate(members, 1)})

    def squat(self, key: str, *, kind: str = "string") -> None:
        """Replace a key under the prefix by one of a foreign type."""
        name = self.keys.prefix + key
        self.client.delete(name)
        if kind == "string":
            self.client.set(name, SQUATTER)
        else:
            self.client.rpush(name, SQUATTER)

    def snapshot(self) -> dict[str, Any]:
        """Return every key under the prefix, without the prefix, with its whole value."""
        names = sorted(self.client.scan_iter(match=f"{self.keys.prefix}*", count=1000))
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.type(name)
            kinds = pipe.execute()
            for name, kind in zip(names, kinds, strict=True):
                match kind:
                    case b"list":
                        pipe.lrange(name, 0, -1)
                    case b"hash":
                        pipe.hgetall(name)
                    case b"set":
                        pipe.smembers(name)
                    case b"zset":
                        pipe.zrange(name, 0, -1, withscores=True)
                    case _:
                        pipe.get(name)
            values = pipe.execute()
        start = len(self.keys.prefix)
        return {name.decode()[start:]: value for name, value in zip(names, values, strict=True)}

    @contextlib.contextmanager
    def unchanged(self, *but: str) -> Iterator[None]:
        """Every key under the prefix, but those named, is after the block as it was before."""
        before = self.snapshot()
        yield
        after = self.snapshot()
        assert {key: after[key] for key in after if key not in but} == {k: before[k] for k in before if k not in but}

    @contextlib.contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Count which commands the server runs in the block, those that scripts call included."""
        counted = Counter[str]()
        before: Any = self.client.info("commandstats")
        yield counted
        after: Any = self.client.info("commandstats")
        for name, stats in after.items():
            calls = stats["calls"] - before.get(name, {"calls": 0})["calls"]
            counted[name.removeprefix("cmdstat_")] = calls

    def follow(self, page: Callable[[str], Command[tuple[str, int]]]) -> int:
        """Ask for pages until their cursor has come to its end; return the sum of what they found."""
        cursor, found = self.run(page("0"))
        while cursor not in {"0", "-1"}:
            cursor, more = self.run(page(cursor))
            found += more
        return found

    def census(self) -> Counter[str]:
        """Count the items of each id in all places where an item can be: nothing may be lost or doubled."""
        return Counter(id_ for key, value in self.snapshot().items() for id_ in _ids_of(key, value))


def ids_in(values: Sequence[bytes | None]) -> list[str]:
    """Return the operation ids that some values carry."""
    return [found[1].decode() for value in values if value is not None and (found := _ID.search(value))]


def _ids_of(key: str, value: Any) -> Iterator[str]:
    if key.startswith(("high:", "normal:", "low:")) or key in ("failures", "system_errors"):
        yield from ids_in(value if isinstance(value, list) else [])
    elif key == "delayed" and isinstance(value, list):
        yield from ids_in([member for member, _ in value if isinstance(member, bytes)])
    elif key.startswith("inflight:") and isinstance(value, Mapping):
        yield from ids_in([v for field, v in value.items() if field.isdigit()])


def assert_whole(broker: Broker, command: Command[Any]) -> bool:
    """Run a command against a squatted key: it is refused with nothing written, or keeps every item. True: it ran."""
    before, items = broker.snapshot(), broker.census()
    try:
        broker.run(command)
    except WrongKeyTypeError:
        assert broker.snapshot() == before
        return False
    assert not items - broker.census(), "items were lost"
    return True


def assert_refused(broker: Broker, command: Command[Any]) -> None:
    """The command raises WrongKeyTypeError and writes nothing."""
    with broker.unchanged(), pytest.raises(WrongKeyTypeError):
        broker.run(command)
