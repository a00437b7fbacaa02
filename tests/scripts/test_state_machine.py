"""All scripts together: after every step of a random history the whole key space is what a plain model says."""

from __future__ import annotations

import contextlib
import copy
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from queue_system import ServerFullError
from queue_system.broker.requests import NewOperation, Place, Reclaim
from queue_system.model.dead_letter import Requeue
from tests.kit.servers import OwnServer
from tests.scripts.model import Model, id_of, timeless
from tests.scripts.support import DEDUP_TTL_MS, RESULT_TTL_MS, Broker, record_of

SETTINGS = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
HOUR_MS = 3_600_000
MOST_DEAD_LETTERS = 3

queues = st.sampled_from(["high:a", "high:b", "normal:a", "normal:b", "low:a"])
workers = st.sampled_from(["w1", "w2"])
picks = st.integers(0, 19)
sources = st.sampled_from(["failures", "system_errors"])
names = st.sampled_from([(), (), ("a",), ("a", "b")])


class Scripts(RuleBasedStateMachine):
    """Two incarnations, five queues, two deduplication keys."""

    server: OwnServer

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(self.server, f"t{uuid.uuid4().hex[:12]}:", MOST_DEAD_LETTERS)
        self.model = Model(self.broker.keys.prefix, MOST_DEAD_LETTERS)
        self.full = False
        self.serial = 0
        self.facts: dict[str, tuple[str, str]] = {}
        self.last_enqueue: tuple[Any, ...] | None = None
        self.last_claims: dict[str, tuple[str, int, Sequence[str]]] = {}
        self.last_settlements: dict[str, tuple[str, str, Sequence[Any]]] = {}
        for worker in ("w1", "w2"):
            self.beat("register", worker)

    def teardown(self) -> None:
        """Delete the keys of this history and close its connections."""
        with contextlib.closing(self.broker) as broker:
            broker.client.config_set("maxmemory", 0)
            for name in broker.client.scan_iter(match=f"{broker.keys.prefix}*", count=1000):
                broker.client.delete(name)

    def fresh(self) -> int:
        """Return a number that this history has not used yet."""
        self.serial += 1
        return self.serial

    @rule(queue=queues, count=st.integers(1, 3), key=st.sampled_from(["", "", "k1", "k2"]), delayed=st.booleans())
    def enqueue(self, queue: str, count: int, key: str, delayed: bool) -> None:
        new = [self.operation(f"{self.fresh():04}", key) for _ in range(count)]
        self.send_enqueue(queue, f"n{self.fresh()}", new, delayed)

    @precondition(lambda self: self.model.records)
    @rule(queue=queues, pick=picks)
    def enqueue_under_a_taken_id(self, queue: str, pick: int) -> None:
        taken = sorted(self.model.records)
        self.send_enqueue(queue, f"n{self.fresh()}", [self.operation(taken[pick % len(taken)], "")], False)

    @precondition(lambda self: self.last_enqueue)
    @rule()
    def resend_the_last_enqueue(self) -> None:
        assert self.last_enqueue is not None
        self.send_enqueue(*self.last_enqueue)

    @rule(worker=workers, wanted=st.integers(1, 6), names=names)
    def claim(self, worker: str, wanted: int, names: Sequence[str]) -> None:
        self.last_claims[worker] = f"c{self.fresh()}", wanted, names
        self.send_claim(worker)

    @rule(worker=workers)
    def resend_the_last_claim(self, worker: str) -> None:
        if worker in self.last_claims:
            self.send_claim(worker)

    @rule(
        worker=workers,
        pick=picks,
        follow_up=st.booleans(),
        verb=st.sampled_from(["complete", "plain", "fail", "reject", "retry", "release", "running"]),
    )
    def settle(self, worker: str, pick: int, follow_up: bool, verb: str) -> None:
        token, delivery = self.choose(worker, pick)
        verb, rest = self.arguments(verb, delivery, follow_up)
        self.last_settlements[worker] = f"s{self.fresh()}", verb, (token, *rest)
        self.send_settlement(worker)

    @rule(worker=workers)
    def resend_the_last_settlement(self, worker: str) -> None:
        if worker in self.last_settlements:
            self.send_settlement(worker)

    @rule(mode=st.sampled_from(["register", "beat", "beat", "leave"]), worker=workers)
    def beat(self, mode: str, worker: str) -> None:
        if f"dead:{worker}" in self.model.workers:
            mode = "beat"
        pulse = self.broker.run(self.broker.commands.beat(mode, worker, 15_000))
        held = len(self.model.tokens(worker))
        assert pulse.alive == self.model.beat(mode, worker, 15_000)
        assert (pulse.tokens, pulse.incarnations) == (held, len(self.model.workers))

    @rule(worker=workers, stale=st.booleans())
    def mark(self, worker: str, stale: bool) -> None:
        observed = b"0:15000" if stale else self.model.workers.get(worker, b"1:15000")
        dead = self.broker.run(self.broker.commands.declare_dead(worker, observed))
        assert dead == self.model.declare_dead(worker, observed)

    @rule(worker=workers, hows=st.lists(st.sampled_from(["next", "later", "reject"]), min_size=1, max_size=4))
    def move(self, worker: str, hows: list[str]) -> None:
        held = self.model.inflight.get(worker, {})
        chosen = zip(self.model.tokens(worker), hows, strict=False)
        moves = [self.moved(token, held[token], how) for token, how in chosen]
        moves += moves[:1]
        assert self.broker.run(self.broker.commands.reclaim(worker, moves)) == self.model.reclaim(worker, moves)

    @precondition(lambda self: not self.full)
    @rule(queue=queues)
    def push_as_a_foreign_client(self, queue: str) -> None:
        item = self.operation(f"{self.fresh():04}", "").item
        self.broker.client.sadd(self.broker.keys.registry, self.broker.keys.prefix + queue)
        self.broker.client.lpush(self.broker.keys.prefix + queue, item)
        self.model.registry.add(queue)
        self.model.lists[queue].append(item)

    @precondition(lambda self: not self.full)
    @rule()
    def sweep(self) -> None:
        assert self.broker.run(self.broker.commands.sweep("0", 0)) == ("0", self.model.sweep())

    @rule(queue=queues)
    def purge(self, queue: str) -> None:
        if any(b'"phase"' in item for item in self.model.lists.get(queue, [])):
            return
        members = [member for member in self.model.delayed if member.split(b"\n")[1] == queue.encode()]
        assert self.broker.run(self.broker.commands.purge(queue)) == self.model.purge(queue)
        if members:
            assert self.broker.run(self.broker.commands.purge(queue, members)) == self.model.purge(queue, members)

    @rule(source=sources, picked=st.lists(picks, max_size=3))
    def drop(self, source: str, picked: list[int]) -> None:
        dead_letters, call_id = self.pick_dead_letters(source, picked), f"d{self.fresh()}"
        command = self.broker.commands.drop(Place(source, call_id, 1, 0, MOST_DEAD_LETTERS), dead_letters)
        for _ in range(2):
            assert self.broker.run(command) == self.model.drop(call_id, source, dead_letters)

    @rule(source=sources, queue=queues, picked=st.lists(picks, min_size=1, max_size=3))
    def retry(self, source: str, queue: str, picked: list[int]) -> None:
        call_id = f"r{self.fresh()}"
        requeues = [self.requeue_of(dead_letter, queue) for dead_letter in self.pick_dead_letters(source, picked)]
        place = Place(source, call_id, 1, 0, MOST_DEAD_LETTERS)
        command = self.broker.commands.retry(place, call_id, DEDUP_TTL_MS, requeues)
        for _ in range(2):
            codes = self.broker.run(command)
            assert codes == self.model.retry(call_id, source, requeues)
        for requeue_of, code in zip(requeues, codes.decode(), strict=True):
            if code == "d" and requeue_of.operation_id:
                self.facts[requeue_of.operation_id] = call_id, requeue_of.deduplication_key

    @precondition(lambda self: not self.full)
    @rule()
    def let_all_delayed_be_due(self) -> None:
        self.broker.make_due()

    @rule(names=names)
    def wake_up(self, names: Sequence[str]) -> None:
        markers = [f"wake:{name}" for name in names] or ["wake"]
        found = next((marker for marker in markers if marker in self.model.wakes), None)
        if found:
            assert self.broker.run(self.broker.commands.wait_for_wake(names, 1))
            self.model.wakes.discard(found)

    @rule(full=st.booleans())
    def fill_or_free_the_memory(self, full: bool) -> None:
        """Nothing new comes in while it is full; all that is there goes on its way."""
        self.broker.client.config_set("maxmemory", 1 if full else 0)
        self.full = full

    @rule()
    def flush_the_scripts(self) -> None:
        self.broker.client.script_flush()

    @invariant()
    def the_key_space_is_what_the_model_says(self) -> None:
        assert self.observed() == self.model.keys()

    @invariant()
    def the_status_counts_what_is_there(self) -> None:
        page = self.broker.run(self.broker.commands.status("0"))
        model, prefix = self.model, self.broker.keys.prefix
        assert page.lists == {prefix + queue: len(model.lists.get(queue, ())) for queue in model.registry}
        assert page.running == sum(len(model.tokens(worker)) for worker in model.inflight)
        assert page.delayed == len(model.delayed)

    def operation(self, operation_id: str, key: str) -> NewOperation:
        """Return an operation; its item tells its key, as those of a manager do."""
        item = f'{{"operation_id":"{operation_id}","processor":"p","deduplication_key":"{key}"}}'
        return NewOperation(operation_id, item.encode(), key)

    def send_enqueue(self, queue: str, nonce: str, new: list[NewOperation], delayed: bool) -> None:
        self.last_enqueue = queue, nonce, new, delayed
        for operation in new:
            self.facts.setdefault(operation.operation_id, (nonce, operation.deduplication_key))
        command = self.broker.commands.enqueue(
            queue, nonce, new, delay_ms=HOUR_MS if delayed else 0, dedup_ttl_ms=DEDUP_TTL_MS
        )
        if self.full:
            unchanged = copy.deepcopy(self.model)
            answers = unchanged.enqueue(queue, nonce, new, delayed=delayed)
            try:
                assert self.broker.run(command) == answers
            except ServerFullError:
                return
            assert unchanged.keys() == self.model.keys(), "something was added though the memory is full"
            return
        assert self.broker.run(command) == self.model.enqueue(queue, nonce, new, delayed=delayed)

    def send_claim(self, worker: str) -> None:
        claim_id, wanted, names = self.last_claims[worker]
        due: list[Any] = self.broker.client.zrangebyscore(self.broker.keys.delayed, "-inf", self.broker.now_ms())
        claimed = self.broker.run(self.broker.commands.claim(worker, claim_id, wanted, names))
        first_token = claimed.first_token if claimed else 0
        answer = (claimed.more, list(claimed.values)) if claimed else None
        assert answer == self.model.claim(worker, claim_id, wanted, names, due, first_token)
        if claimed:
            assert (claimed.next_due_ms >= 0) == bool(self.model.delayed)
            if due and self.broker.score("wake") is not None:  # a marker too many after a promotion harms nobody
                self.model.wakes.add("wake")

    def send_settlement(self, worker: str) -> None:
        settlement_id, verb, delivery = self.last_settlements[worker]
        answer = self.broker.settle(settlement_id, (verb, RESULT_TTL_MS, [delivery]), by=worker)
        assert answer == self.model.settle(worker, settlement_id, verb, delivery)

    def choose(self, worker: str, pick: int) -> tuple[int, bytes]:
        """Return a token and what it holds; now and then one that the incarnation does not hold."""
        tokens = self.model.tokens(worker)
        if not tokens or pick == 0:
            return 1, b'normal:a\n{"operation_id":"none"}'
        token = tokens[pick % len(tokens)]
        return int(token), self.model.inflight[worker][token]

    def arguments(self, verb: str, value: bytes, follow_up: bool) -> tuple[str, Sequence[Any]]:
        """Return the arguments of a verb for a value in flight, as a worker composes them."""
        if b'"phase"' in value and verb in ("running", "retry", "fail"):
            verb = "reject"
        id_, key = id_of(value), self.facts.get(id_of(value), ("", ""))[1]
        dead_letter = () if verb in ("complete", "plain") else (b"letter of %b" % id_.encode(),)
        match verb:
            case "release":
                return verb, ()
            case "running":
                return verb, (id_, self.record("running", value))
            case "retry":
                return verb, (id_, self.record("delayed", value), value, 0)
        if b'"phase"' in value:
            return "complete" if verb == "plain" else verb, ("", b"", "", b"", *dead_letter)
        callback = self.callback(value) if follow_up else b""
        if verb == "plain" and not key and not callback:
            return verb, (id_, self.record("succeeded", value))
        verb = "complete" if verb == "plain" else verb
        return verb, (id_, self.record("succeeded", value), key, callback, *dead_letter)

    def moved(self, token: bytes, value: bytes, how: str) -> Reclaim:
        """Return what a reclaimer makes of an item."""
        if how != "reject":
            return Reclaim(token, value, how, value)
        if b'"phase"' in value:
            return Reclaim(token, value, how, b"letter")
        id_ = id_of(value)
        key = self.facts.get(id_, ("", ""))[1]
        record = self.record("rejected", value)
        return Reclaim(token, value, how, b"letter", id_, record, RESULT_TTL_MS, key, self.callback(value))

    def pick_dead_letters(self, source: str, picked: Sequence[int]) -> list[bytes]:
        """Return dead letters of a list; now and then one that is not there."""
        dead_letters = self.model.dead_letters.get(source, [])
        return [
            dead_letters[pick % len(dead_letters)] if dead_letters and pick else b"letter of none" for pick in picked
        ]

    def requeue_of(self, dead_letter: bytes, queue: str) -> Requeue:
        """Return what a dead letter becomes again."""
        id_ = dead_letter.rpartition(b" ")[2].decode() if b" " in dead_letter else ""
        key = self.facts.get(id_, ("", ""))[1]
        return Requeue(dead_letter, queue, self.operation(id_ or "nobody", key).item, id_, key, "")

    def callback(self, value: bytes) -> bytes:
        return value[:-1] + b',"phase":"on_success"}'

    def record(self, status: str, value: bytes) -> bytes:
        nonce, key = self.facts.get(id_of(value), ("", ""))
        queue = value.partition(b"\n")[0].decode()
        return record_of(status, queue, touched_ms=self.broker.now_ms(), nonce=nonce, key=key)

    def observed(self) -> dict[str, Any]:
        """Return the key space without its times."""
        seen = self.broker.snapshot()
        records = [key for key in seen if key.startswith("operation:")]
        with self.broker.client.pipeline(transaction=False) as pipe:
            for key in records:
                pipe.pttl(self.broker.keys.prefix + key)
            lives_ms = dict(zip(records, pipe.execute(), strict=True))
        for key, value in seen.items():
            if key in lives_ms:
                seen[key] = timeless(value), lives_ms[key] >= 0
            elif key.startswith("ready:"):
                seen[key] = [name.decode() for name, _ in value]
            elif key == "delayed" or key.startswith("wake"):
                seen[key] = {member for member, _ in value}
            elif key == "swept":
                seen[key] = True
        return seen


@pytest.mark.timeout(240)
def test_after_every_step_the_key_space_is_what_the_model_says(server: OwnServer) -> None:
    class OnThisServer(Scripts):
        pass

    OnThisServer.server = server
    run_state_machine_as_test(OnThisServer, settings=SETTINGS)
