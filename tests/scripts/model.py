"""What the scripts must do, told once more in plain dictionaries. Never talks to Redis, and knows no time.

Times are the one thing left out: records show `T` for them, indexes show their order only, and what is due is told.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from queue_system.broker.requests import NewOperation, Reclaim
from queue_system.model.dead_letter import Requeue

LIVE = (b"queued", b"delayed", b"running")
OUTCOMES = {"complete": ("processed", ""), "fail": ("failed", "failures"), "reject": ("rejected", "system_errors")}
_ID = re.compile(rb'{"operation_id":"([^"]+)"')
_ENQUEUED = re.compile(rb"^(delayed(?:\t[^\t\n]*){4})\t0\t\d+\t0\t$")
_TIME = re.compile(rb"^([a-z]+\t[^\t]*\t)\d+")


def timeless(record: bytes) -> bytes:
    """Return a record with `T` for the time at which it was touched, and without that at which it was enqueued."""
    return _TIME.sub(rb"\1T", _ENQUEUED.sub(rb"\1", record))


def id_of(value: bytes) -> str:
    """Return the operation id in an item, a value in flight or a delayed member; "" when there is none."""
    found = _ID.search(value)
    return found[1].decode() if found else ""


@dataclass(slots=True)
class Model:
    """The key space under one prefix. Each method does what the script of its name does, and returns its reply."""

    prefix: str
    most_dead_letters: int
    lists: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """Waiting items, the next one first."""
    ready: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Names by priority, the next one first."""
    registry: set[str] = field(default_factory=set)
    delayed: set[bytes] = field(default_factory=set)
    workers: dict[str, bytes] = field(default_factory=dict)
    incarnations: dict[bytes, bytes] = field(default_factory=dict)
    inflight: dict[str, dict[bytes, bytes]] = field(default_factory=lambda: defaultdict(dict))
    records: dict[str, tuple[bytes, bool]] = field(default_factory=dict)
    """Timeless records, and whether they expire."""
    dedup: dict[str, str] = field(default_factory=dict)
    wakes: set[str] = field(default_factory=set)
    dead_letters: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """Dead letters, the newest first."""
    metrics: Counter[str] = field(default_factory=Counter)
    token: int = 0
    swept: bool = False
    answers: dict[str, str] = field(default_factory=dict)
    """What operators were told, by call."""

    def keys(self) -> dict[str, Any]:
        """Return what a timeless snapshot must show."""
        keys: dict[str, Any] = {queue: items[::-1] for queue, items in self.lists.items()}
        keys |= {f"ready:{priority}": names for priority, names in self.ready.items()}
        keys |= {f"inflight:{worker}": held for worker, held in self.inflight.items()}
        keys |= {f"operation:{id_}": record for id_, record in self.records.items()}
        keys |= {marker: {b"r"} for marker in self.wakes}
        keys |= self.dead_letters
        keys |= {f"answer:{call_id}": f"1 {codes}".encode() for call_id, codes in self.answers.items()}
        keys["registry"] = {f"{self.prefix}{queue}".encode() for queue in self.registry}
        keys["delayed"] = self.delayed
        keys["workers"] = {name.encode(): entry for name, entry in self.workers.items()}
        keys["incarnations"] = self.incarnations
        keys["dedup"] = {key.encode(): id_.encode() for key, id_ in self.dedup.items()}
        keys["metrics"] = {name.encode(): b"%d" % n for name, n in self.metrics.items() if n}
        keys["token"] = b"%d" % self.token if self.token else b""
        keys["swept"] = self.swept
        return {key: value for key, value in keys.items() if value}

    def tokens(self, worker: str) -> list[bytes]:
        """Return the tokens that an incarnation holds, dead or alive."""
        return sorted(token for token in self.inflight.get(worker, {}) if token.isdigit())

    def enqueue(self, queue: str, nonce: str, new: Sequence[NewOperation], *, delayed: bool) -> list[int | bytes]:
        """enqueue.lua."""
        answers: list[int | bytes] = []
        fresh = []
        for operation in new:
            id_, key = operation.operation_id, operation.deduplication_key
            resent = id_ in self.records and self.records[id_][0].split(b"\t")[1] == nonce.encode()
            if key and not resent and (holder := self._live_holder(key, id_)):
                answers.append(holder.encode())
            elif id_ in self.records:
                answers.append(int(resent))
            else:
                status = "delayed" if delayed else "queued"
                self.records[id_] = f"{status}\t{nonce}\tT\t{queue}\t{key}".encode(), False
                if key:
                    self.dedup[key] = id_
                fresh.append(operation.item)
                answers.append(1)
        if fresh:
            priority, name = queue.split(":")
            if delayed or name not in self.ready[priority]:  # workers of an indexed queue have been told
                self._wake(queue)
            if delayed:
                self.delayed |= {b"0\n%b\n%b" % (queue.encode(), item) for item in fresh}
            else:
                self.lists[queue] += fresh
                self._index([queue])
            self.registry.add(queue)
            self.metrics["enqueued"] += len(fresh)
        return answers

    def claim(
        self, worker: str, claim_id: str, wanted: int, names: Sequence[str], due: Sequence[bytes], first_token: int
    ) -> tuple[bool, list[bytes | None]] | None:
        """claim.lua: whether more is left, and the values. `first_token` is the one that the server chose."""
        if worker not in self.workers:
            for ready in self.ready.values():
                self.wakes |= {f"wake:{name}" for name in ready if name in names}
                if ready and not names:
                    self.wakes.add("wake")
            return None
        last = self.inflight[worker].get(b"#claim", b"0 0 0").split()
        if last[0] == claim_id.encode():
            replayed = range(int(last[1]), int(last[1]) + int(last[2]))
            return False, [self.inflight[worker].get(b"%d" % token) for token in replayed]
        self._promote(due)
        values: list[bytes] = []
        more = False
        for priority in ("high", "normal", "low"):
            serve = self._serve_some if names else self._serve_all
            more = serve(priority, wanted, values, names) or more
        if values:
            assert first_token > self.token
            self.token = first_token + len(values) - 1
            self.inflight[worker] |= {b"%d" % (first_token + i): value for i, value in enumerate(values)}
            self.inflight[worker][b"#claim"] = f"{claim_id} {first_token} {len(values)}".encode()
        if more and not names:
            self.wakes.add("wake")
        return more, list(values)

    def settle(self, worker: str, settlement_id: str, verb: str, delivery: Sequence[Any]) -> bytes:
        """settle.lua, for one delivery."""
        if worker not in self.workers:
            return b"lost"
        held = self.inflight[worker]
        last = held.get(b"#settle", b"- -").split()
        if last[0] == settlement_id.encode():
            return last[1]
        token = b"%d" % delivery[0]
        code = b"d" if token in held else b"l"
        if token in held:
            self._apply(held, verb, token, delivery[1:])
        held[b"#settle"] = settlement_id.encode() + b" " + code
        return code

    def beat(self, mode: str, worker: str, lease_ms: int) -> bool:
        """beat.lua: whether the incarnation is registered."""
        if worker not in self.workers and mode != "register":
            return False
        if mode != "leave":
            counter = int(self.workers.get(worker, b"0:").split(b":")[0]) + 1
            self.workers[worker] = f"{counter}:{lease_ms}".encode()
            self.incarnations[worker.encode()] = b""
        elif not self.tokens(worker):
            del self.workers[worker]
            self.incarnations.pop(worker.encode(), None)
            self.inflight.pop(worker, None)
        return True

    def declare_dead(self, worker: str, observed: bytes) -> bool:
        """declare_dead.lua."""
        if self.workers.get(worker) != observed:
            return False
        self.workers[f"dead:{worker}"] = self.workers.pop(worker)
        return True

    def reclaim(self, worker: str, reclaims: Iterable[Reclaim]) -> list[int]:
        """reclaim.lua."""
        if f"dead:{worker}" not in self.workers:
            return [0, 0]
        moved, held, requeue = 0, self.inflight[worker], []
        for reclaim in reclaims:
            if held.get(reclaim.token) != reclaim.old:
                continue
            del held[reclaim.token]
            moved += 1
            if reclaim.how != "reject":
                requeue.append(self._requeue(reclaim.new, head=reclaim.how == "next"))
                continue
            self._bury("system_errors", reclaim.new)
            self.metrics["system_errors"] += 1
            if reclaim.operation_id:
                self._finish(reclaim.operation_id, reclaim.record, reclaim.deduplication_key, "rejected")
            if reclaim.follow_up:
                requeue.append(self._requeue(reclaim.follow_up, head=True))
        self._index(requeue)
        self.metrics["reclaimed"] += moved
        left = len(self.tokens(worker))
        if not left:
            del self.workers[f"dead:{worker}"]
            self.incarnations.pop(worker.encode(), None)
            self.inflight.pop(worker, None)
        return [moved, left]

    def sweep(self) -> int:
        """sweep.lua, not restrained by its interval: how many lists were found."""
        self.swept = True
        found = [q for q in self.registry if self.lists.get(q) and q.split(":")[1] not in self.ready[q.split(":")[0]]]
        self._index(found)
        for queue in found:
            self._wake(queue)
        return len(found)

    def purge(self, queue: str, members: Sequence[bytes] = ()) -> int:
        """purge.lua."""
        removed = [member for member in members if member in self.delayed] if members else self.lists.pop(queue, [])
        self.delayed -= set(removed)
        if not members:
            self._unindex(queue)
        for item in removed:
            id_ = id_of(item)
            record, _ = self.records.pop(id_, (b"\t\t\t\t", False))
            key = record.split(b"\t")[4].partition(b"\n")[0].decode()
            if self.dedup.get(key) == id_:
                del self.dedup[key]
        self.metrics["purged"] += len(removed)
        return len(removed)

    def drop(self, call_id: str, source: str, dead_letters: Sequence[bytes]) -> bytes:
        """drop.lua, for the first request of a call."""
        if call_id not in self.answers:
            codes = ["d" if self._take_dead_letter(source, dead_letter) else "g" for dead_letter in dead_letters]
            self.metrics["dead_letters_dropped"] += codes.count("d")
            self.answers[call_id] = "".join(codes)
        return self.answers[call_id].encode()

    def retry(self, call_id: str, source: str, requeues: Sequence[Requeue]) -> bytes:
        """retry.lua, for the first request of a call, whose nonce is its id."""
        if call_id not in self.answers:
            codes = [self._retry(call_id, source, requeue_of) for requeue_of in requeues]
            queues = [requeue_of.queue for requeue_of, code in zip(requeues, codes, strict=True) if code == "d"]
            self._index(queues)
            self.metrics["dead_letters_retried"] += len(queues)
            self.answers[call_id] = "".join(codes)
        return self.answers[call_id].encode()

    def _retry(self, nonce: str, source: str, requeue_of: Requeue) -> str:
        id_, key, queue = requeue_of.operation_id, requeue_of.deduplication_key, requeue_of.queue
        if requeue_of.dead_letter not in self.dead_letters[source]:
            return "g"
        if id_:
            status = self.records.get(id_, (b"", False))[0].split(b"\t")[0]
            if status in (*LIVE, b"succeeded") or (key and self._live_holder(key, id_)):
                return "l"
            self.records[id_] = f"queued\t{nonce}\tT\t{queue}\t{key}".encode(), False
            if key:
                self.dedup[key] = id_
        self._take_dead_letter(source, requeue_of.dead_letter)
        self._requeue(f"{queue}\n".encode() + requeue_of.item, head=False)
        return "d"

    def _take_dead_letter(self, source: str, dead_letter: bytes) -> bool:
        """Take the oldest of equal dead letters."""
        found = self.dead_letters[source]
        if dead_letter in found:
            del found[len(found) - 1 - found[::-1].index(dead_letter)]
            return True
        return False

    def _live_holder(self, key: str, id_: str) -> str | None:
        holder = self.dedup.get(key)
        if holder in (None, id_) or holder not in self.records:
            return None
        return holder if self.records[holder][0].split(b"\t")[0] in LIVE else None

    def _index(self, queues: Iterable[str]) -> None:
        for queue in sorted(set(queues)):  # those of one script have one score, so their names order them
            priority, name = queue.split(":")
            if name not in self.ready[priority]:
                self.ready[priority].append(name)

    def _unindex(self, queue: str) -> None:
        priority, name = queue.split(":")
        if name in self.ready[priority]:
            self.ready[priority].remove(name)

    def _bury(self, source: str, dead_letter: bytes) -> None:
        self.dead_letters[source].insert(0, dead_letter)
        if len(self.dead_letters[source]) > self.most_dead_letters:
            self.dead_letters[source].pop()
            self.metrics["dead_letters_dropped"] += 1

    def _wake(self, queue: str) -> None:
        self.wakes |= {"wake", "wake:" + queue.split(":")[1]}

    def _promote(self, due: Sequence[bytes]) -> None:
        for member in due:
            self.delayed.remove(member)
            _, queue, item = member.decode().split("\n", 2)
            self.lists[queue].append(item.encode())
            self.registry.add(queue)
            self.wakes.add("wake:" + queue.split(":")[1])
        self._index(member.decode().split("\n")[1] for member in due)

    def _take(self, priority: str, name: str, share: int, values: list[bytes]) -> bool:
        queue = f"{priority}:{name}"
        taken = self.lists[queue][:share]
        del self.lists[queue][:share]
        values += [b"%b\n%b" % (queue.encode(), item) for item in taken]
        self.ready[priority].remove(name)
        if len(taken) == share:
            self.ready[priority].append(name)
        return len(taken) == share

    def _serve_all(self, priority: str, wanted: int, values: list[bytes], _: Sequence[str]) -> bool:
        queues = len(self.ready[priority])
        while len(values) < wanted and queues:
            share = -(-(wanted - len(values)) // queues)
            queues -= not self._take(priority, self.ready[priority][0], share, values)
        return bool(self.ready[priority])

    def _serve_some(self, priority: str, wanted: int, values: list[bytes], names: Sequence[str]) -> bool:
        turns = [name for name in self.ready[priority] if name in names]
        left = False
        for i, name in enumerate(turns):
            missing = wanted - len(values)
            if missing == 0 or self._take(priority, name, -(-missing // (len(turns) - i)), values):
                left = True
                self.wakes.add(f"wake:{name}")
        return left

    def _apply(self, held: dict[bytes, bytes], verb: str, token: bytes, rest: Sequence[Any]) -> None:
        match verb, rest:
            case "running", (id_, record):
                self.records[id_] = timeless(record), False
            case "release", ():
                self._index([self._requeue(held.pop(token), head=True)])
            case "retry", (id_, record, value, _):
                del held[token]
                self.delayed.add(token + b"\n" + value)
                self.records[id_] = timeless(record), False
                self.metrics["retried"] += 1
            case "plain", (id_, record):
                del held[token]
                self._finish(id_, record, "", "processed")
            case _, (id_, record, key, follow_up, *dead_letter):
                del held[token]
                if follow_up:
                    held[token] = follow_up
                outcome, source = OUTCOMES[verb]
                for each in dead_letter:
                    self._bury(source, each)
                self.metrics["system_errors"] += verb == "reject"
                if id_:
                    self._finish(id_, record, key, outcome)

    def _finish(self, id_: str, record: bytes, key: str, outcome: str) -> None:
        self.records[id_] = timeless(record), True
        if self.dedup.get(key) == id_:
            del self.dedup[key]
        self.metrics[outcome] += 1

    def _requeue(self, value: bytes, *, head: bool) -> str:
        queue, _, item = value.decode().partition("\n")
        record, final = self.records.get(id_of(item.encode()), (b"", False))
        if record.startswith(b"running\t"):
            self.records[id_of(item.encode())] = record.replace(b"running", b"queued", 1), final
        self.lists[queue].insert(0 if head else len(self.lists[queue]), item.encode())
        self.registry.add(queue)
        self._wake(queue)
        return queue
