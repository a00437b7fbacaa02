"""At maxmemory nothing new comes in, and all that is in goes on to its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from queue_system.broker.requests import NewOperation, Place, Reclaim
from queue_system.errors import ServerFullError
from queue_system.model.dead_letter import Requeue
from tests.kit.servers import StartServer
from tests.scripts.support import DEDUP_TTL_MS, RESULT_TTL_MS, Broker, W, ids_in, item_of, record_of, value_of

Q = "normal:a"


@pytest.fixture
def full(binary: Path, start_server: StartServer) -> Iterator[Broker]:
    """A broker whose server gets full with `fill`; eight operations wait."""
    server = start_server(binary=binary, maxmemory="100mb", maxmemory_policy="noeviction", appendonly="no")
    with contextlib.closing(Broker(server, "q:")) as broker:
        broker.register(W, "w2")
        broker.enqueue(Q, *"12345678", key="")
        yield broker


def fill(broker: Broker) -> None:
    """Leave no memory, and prove that an ordinary write is refused."""
    broker.client.set(broker.counter, 100)
    broker.client.config_set("maxmemory", "1")
    with pytest.raises(redis.ResponseError, match="used memory"):
        broker.client.set("other", "x")


@pytest.mark.parametrize("delay_ms", [0, 1000])
def test_enqueue_is_refused_whole(full: Broker, delay_ms: int) -> None:
    fill(full)
    with full.unchanged():
        new = [NewOperation(str(i), item_of(str(i)), f"k{i}") for i in range(10, 20)]
        with pytest.raises(ServerFullError):
            full.run(full.commands.enqueue(Q, "n", new, delay_ms=delay_ms, dedup_ttl_ms=DEDUP_TTL_MS))


@pytest.mark.parametrize("names", [(), ("a",)])
def test_claim_passes_and_is_replayed(full: Broker, names: tuple[str, ...]) -> None:
    full.enqueue(Q, "due", delay_ms=60_000)
    full.make_due()
    fill(full)
    claimed = full.claim(3, names, claim_id="c1")
    assert ids_in(claimed.values) == ["1", "2", "3"]
    assert full.claim(3, names, claim_id="c1").values == claimed.values
    assert len(full.claim(9, names, claim_id="c2").values) == 6
    assert list(full.claim(9, names, claim_id="c3").values) == []


def test_claim_of_an_adopted_value_passes(full: Broker) -> None:
    fill(full)
    assert full.claim(claim_id="c1", adopt=value_of(Q, "x")).values == [value_of(Q, "x")]


@pytest.mark.parametrize("write_many", ["", "MSETEX"])
def test_a_settlement_of_successes_passes(full: Broker, write_many: str) -> None:
    full.commands.write_many = write_many
    first = full.claim(3, claim_id="c1").first_token
    fill(full)
    plain = [(first - 1, "none", b"r"), *((first + i, str(i + 1), record_of("succeeded", Q)) for i in range(3))]
    assert full.settle("s1", ("plain", RESULT_TTL_MS, plain)) == b"lddd"
    assert full.settle("s2", ("plain", RESULT_TTL_MS, [(first, "1", b"r")])) == b"l"
    assert full.census() == dict.fromkeys("45678", 1)


def test_settlements_pass_with_every_verb(full: Broker) -> None:
    first = full.claim(7, claim_id="c1").first_token
    fill(full)
    answer = full.settle(
        "s1",
        ("running", 0, [(first, "1", record_of("running", Q))]),
        ("complete", RESULT_TTL_MS, [(first, "1", b"r", "", ""), (first + 1, "2", b"r", "", value_of(Q, "2"))]),
        ("fail", RESULT_TTL_MS, [(first + 2, "3", b"r", "", "", b"letter")]),
        ("reject", RESULT_TTL_MS, [(first + 3, "4", b"r", "", "", b"letter")]),
        ("retry", 0, [(first + 4, "5", b"r", value_of(Q, "5"), 0)]),
        ("release", 0, [(first + 5,)]),
    )
    assert answer == b"ddddddd"
    assert full.census() == {"2": 1, "5": 1, "6": 1, "7": 1, "8": 1}
    assert ids_in(full.claim(9, claim_id="c2").values) == ["6", "8", "5"]


@pytest.mark.parametrize("verb", ["running", "release"])
def test_a_batch_of_one_verb_passes(full: Broker, verb: str) -> None:
    token = full.claim(1, claim_id="c1").first_token
    fill(full)
    delivery = (token, "1", b"r") if verb == "running" else (token,)
    assert full.settle("s1", (verb, 0, [delivery])) == b"d"


def test_beats_pass_and_new_workers_register(full: Broker) -> None:
    fill(full)
    for mode in ("beat", "register", "leave"):
        assert full.run(full.commands.beat(mode, W, 1000)).alive
    assert full.run(full.commands.beat("register", "w3", 1000)).alive


def test_a_reclaim_passes(full: Broker) -> None:
    first = full.claim(3, claim_id="c1").first_token
    fill(full)
    full.add_dead_letter()
    moves = [
        Reclaim(b"%d" % first, value_of(Q, "1"), "next", value_of(Q, "1")),
        Reclaim(b"%d" % (first + 1), value_of(Q, "2"), "later", value_of(Q, "2")),
        Reclaim(
            b"%d" % (first + 2), value_of(Q, "3"), "reject", b"letter", "3", b"r", RESULT_TTL_MS, "k", b"normal:a\nx"
        ),
    ]
    assert full.run(full.commands.reclaim(W, moves)) == [3, 0]
    assert full.snapshot()["system_errors"] == [b"letter"]


def test_purge_trim_sweep_and_status_pass(full: Broker) -> None:
    full.client.rpush(full.keys.failures, "letter")
    full.client.sadd(full.keys.registry, full.keys.queue("low", "foreign"))
    full.client.lpush(full.keys.queue("low", "foreign"), item_of("f"))
    fill(full)
    assert full.run(full.commands.purge(Q)) == 8
    assert full.run(full.commands.trim("failures", [(0, b"letter")])) == 1
    assert full.run(full.commands.sweep("0", 0)) == ("0", 1)
    assert full.run(full.commands.status("0")).lists[full.keys.queue("low", "foreign")] == 1


def test_what_workers_note_of_queues_passes(full: Broker) -> None:
    """Which they leave alone, in the turn that settles, too; and which nobody has used for long."""
    fill(full)
    assert full.run(full.commands.rest("host:1", [("a", 30_000, "no module")])) == 1
    assert full.run(full.commands.forget_names("0", 0, 1000)) == ("0", 0)


def test_watching_and_orphans_pass(full: Broker) -> None:
    full.claim(1, claim_id="c1")
    full.client.delete(full.keys.workers)
    fill(full)
    assert full.run(full.commands.watch("sign")) == {}
    assert full.run(full.commands.orphans("", [W]))[1] == 1


def test_dead_letters_are_retried_and_dropped(full: Broker) -> None:
    full.client.rpush(full.keys.failures, "new", "mid", "old")
    fill(full)
    assert full.run(full.commands.drop(Place("failures", "b", 1, 0, 2), [b"none"])) == b"g"
    requeue_of = Requeue(b"mid", "low:b", item_of("9"), "9", "k", "")
    assert full.run(full.commands.retry(Place("failures", "c", 1, 0, 2), "n", DEDUP_TTL_MS, [requeue_of])) == b"d"
    assert full.run(full.commands.drop(Place("failures", "c", 2, 0, 1), [b"old"])) == b"d"
    assert (full.items("low:b"), full.snapshot()["failures"]) == (["9"], [b"new"])


def test_a_later_page_of_a_sweep_passes(full: Broker) -> None:
    for i in range(1200):
        full.client.sadd(full.keys.registry, full.keys.queue("low", f"q{i}"))
        full.client.lpush(full.keys.queue("low", f"q{i}"), item_of("f"))
    fill(full)
    assert full.follow(lambda cursor: full.commands.sweep(cursor, 0)) == 1200
