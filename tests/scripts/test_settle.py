"""settle.lua: a verdict is written once, with all that belongs to it, by the incarnation that still holds the item."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from queue_system.broker.protocol import Argument
from queue_system.errors import WrongKeyTypeError
from tests.scripts.support import RESULT_TTL_MS, Broker, Group, W, ids_in, item_of, record_of, value_of

Q = "normal:a"
DONE = record_of("succeeded", Q)
CALLBACK = b"normal:a\n" + item_of("1")[:-1] + b',"phase":"on_success"}'


def held(broker: Broker, *ids: str, key: str = "") -> int:
    """Enqueue and claim; return the first token."""
    broker.enqueue(Q, *ids, key=key)
    return broker.claim(len(ids)).first_token


def deliveries(token: int, operation_id: str = "1") -> dict[str, Sequence[Argument]]:
    """The arguments of each verb for one token."""
    return {
        "complete": (token, operation_id, DONE, "", ""),
        "fail": (token, operation_id, record_of("failed", Q), "", "", b"letter"),
        "reject": (token, operation_id, record_of("rejected", Q), "", "", b"letter"),
        "retry": (token, operation_id, record_of("delayed", Q), value_of(Q, operation_id), 1000),
        "release": (token,),
        "running": (token, operation_id, record_of("running", Q)),
        "plain": (token, operation_id, DONE),
    }


VERBS = tuple(deliveries(0))


@pytest.mark.parametrize(
    "verb, dead_letters, counters",
    [
        ("complete", {}, {b"processed": b"1"}),
        ("fail", {"failures": [b"letter"]}, {b"failed": b"1"}),
        ("reject", {"system_errors": [b"letter"]}, {b"rejected": b"1", b"system_errors": b"1"}),
    ],
)
def test_a_verdict_removes_the_item_keeps_its_record_for_its_lifetime_and_writes_one_dead_letter_if_it_is_no_success(
    broker: Broker, verb: str, dead_letters: dict[str, list[bytes]], counters: dict[bytes, bytes]
) -> None:
    token = held(broker, "1", key="k")
    letter = (b"letter",) if dead_letters else ()
    assert broker.settle_one(verb, token, "1", DONE, "k", "", *letter) == b"d"
    snapshot = broker.snapshot()
    assert {key: snapshot[key] for key in ("failures", "system_errors", "dedup") if key in snapshot} == dead_letters
    assert snapshot["operation:1"] == DONE
    assert RESULT_TTL_MS - 5000 < broker.client.pttl(broker.keys.operation("1")) <= RESULT_TTL_MS
    assert broker.inflight() == {}
    assert snapshot["metrics"] == {b"enqueued": b"1", **counters}


@pytest.mark.parametrize("waited_for", [False, True])
def test_plain_is_complete_without_a_key_and_a_callback(broker: Broker, waited_for: bool) -> None:
    """In one group, which is the usual case, and among others; whether somebody waits or not."""
    first = held(broker, *"123456")
    if waited_for:
        broker.client.zadd(f"{broker.keys.prefix}waiters", {"2": 2**52, "5": 2**52})
    alone = [(first, "1", DONE), (first + 1, "2", DONE), (first + 99, "none", DONE), (first, "1", DONE)]
    assert broker.settle("s1", ("plain", RESULT_TTL_MS, alone)) == b"ddll"
    assert broker.settle("s1", ("plain", RESULT_TTL_MS, alone)) == b"ddll"
    among: list[Group] = [
        ("release", 0, [(first + 2,)]),
        ("plain", RESULT_TTL_MS, [(first + 3, "4", DONE), (first + 4, "5", DONE)]),
    ]
    assert broker.settle("s2", *among, ("plain", RESULT_TTL_MS, [(first + 5, "6", DONE)])) == b"dddd"
    changed = {id_ for id_ in "123456" if broker.client.delete(f"{broker.keys.prefix}change:{id_}")}
    assert changed == ({"2", "5"} if waited_for else set())
    snapshot = broker.snapshot()
    assert {id_ for id_ in "123456" if snapshot[f"operation:{id_}"] == DONE} == set("12456")
    assert all(broker.client.pttl(broker.keys.operation(id_)) > RESULT_TTL_MS - 5000 for id_ in "12456")
    assert "operation:none" not in snapshot
    assert snapshot["metrics"] == {b"enqueued": b"6", b"processed": b"5"}
    assert broker.inflight() == {}


@pytest.mark.parametrize("verb", ["complete", "fail", "reject"])
def test_a_callback_takes_the_place_of_its_operation_and_is_settled_in_turn(broker: Broker, verb: str) -> None:
    token = held(broker, "1")
    letter = () if verb == "complete" else (b"letter",)
    assert broker.settle_one(verb, token, "1", DONE, "", CALLBACK, *letter) == b"d"
    assert broker.inflight() == {token: CALLBACK}
    counters = broker.snapshot()["metrics"]
    assert broker.settle_one("complete", token, "", "", "", "") == b"d"
    assert broker.inflight() == {}
    assert broker.snapshot()["metrics"] == counters
    assert broker.snapshot()["operation:1"] == DONE


def test_a_rejected_callback_leaves_a_letter_and_the_verdict_of_its_operation(broker: Broker) -> None:
    token = held(broker, "1")
    broker.settle_one("complete", token, "1", DONE, "", CALLBACK)
    assert broker.settle_one("reject", token, "", "", "", "", b"letter") == b"d"
    snapshot = broker.snapshot()
    assert (snapshot["system_errors"], snapshot["operation:1"]) == ([b"letter"], DONE)
    assert snapshot["metrics"] == {b"enqueued": b"1", b"processed": b"1", b"system_errors": b"1"}


def test_retry_puts_the_changed_item_into_the_delayed_set_with_a_record_that_stays(broker: Broker) -> None:
    token = held(broker, "1", key="k")
    before = broker.now_ms()
    record = record_of("delayed", Q, key="k")
    assert broker.settle_one("retry", token, "1", record, b"normal:a\nchanged", 5000) == b"d"
    snapshot = broker.snapshot()
    ((member, due_ms),) = snapshot["delayed"]
    assert member == b"%d\nnormal:a\nchanged" % token
    assert before + 5000 <= due_ms <= broker.now_ms() + 5000
    assert (snapshot["operation:1"], snapshot["dedup"]) == (record, {b"k": b"1"})
    assert broker.client.pttl(broker.keys.operation("1")) == -1
    assert snapshot["metrics"][b"retried"] == b"1"
    assert broker.inflight() == {}


def test_equal_items_that_wait_for_a_retry_stay_apart(broker: Broker) -> None:
    for _ in range(2):
        token = broker.claim(adopt=b"normal:a\n{}").first_token
        broker.settle_one("retry", token, "x", b"r", b"normal:a\n{}", 1000)
    assert broker.client.zcard(broker.keys.delayed) == 2


def test_release_puts_the_item_back_as_the_next_one_and_wakes_a_worker(broker: Broker) -> None:
    token = held(broker, "1", "2")
    broker.enqueue(Q, "3")
    broker.client.delete(broker.keys.wake(), broker.keys.wake("a"), broker.keys.registry)
    broker.client.delete(broker.keys.prefix + "ready:normal")
    assert broker.settle("s", ("release", 0, [(token + 1,), (token,)])) == b"dd"
    assert broker.items(Q) == ["1", "2", "3"]
    assert broker.inflight() == {}
    assert broker.score("wake") == broker.score("wake:a") == 0
    assert broker.snapshot()["registry"] == {(broker.keys.prefix + Q).encode()}
    assert ids_in(broker.claim(3).values) == ["1", "2", "3"]


def test_what_was_noted_as_running_and_goes_back_is_noted_as_queued(broker: Broker) -> None:
    token = held(broker, "1", "2")
    record = record_of("running", Q, touched_ms=7, nonce="n", key="k")
    for i, id_ in enumerate(("1", "2")):
        assert broker.settle_one("running", token + i, id_, record) == b"d"
    broker.run(broker.commands.get_record("1", 10_000))
    assert broker.settle_one("release", token) == b"d"
    assert broker.client.get(broker.keys.operation("1")) == record.replace(b"running", b"queued")
    assert broker.client.xlen(broker.keys.change("1")) == 1
    assert broker.client.get(broker.keys.operation("2")) == record


def test_running_writes_a_record_and_settles_nothing(broker: Broker) -> None:
    token = held(broker, "1")
    record = record_of("running", Q)
    assert broker.settle_one("running", token, "1", record) == b"d"
    assert broker.snapshot()["operation:1"] == record
    assert broker.client.pttl(broker.keys.operation("1")) == -1
    assert broker.inflight() == {token: value_of(Q, "1")}


def test_a_note_of_running_that_travels_behind_the_completion_changes_nothing(broker: Broker) -> None:
    """While a batch is sent again, a note can come to stand behind the completion in the next one."""
    token = held(broker, "1")
    broker.settle(
        "s",
        ("complete", RESULT_TTL_MS, [(token, "1", DONE, "", CALLBACK)]),
        ("running", 0, [(token, "1", record_of("running", Q))]),
    )
    assert broker.snapshot()["operation:1"] == DONE
    assert broker.client.pttl(broker.keys.operation("1")) > 0


@pytest.mark.parametrize("verb", VERBS)
def test_sent_again_under_its_id_it_changes_nothing_and_answers_the_same(broker: Broker, verb: str) -> None:
    token = held(broker, "1", "2")
    group = (verb, RESULT_TTL_MS, [deliveries(token)[verb]])
    assert broker.settle("s1", group) == b"d"
    with broker.unchanged():
        assert broker.settle("s1", group) == b"d"


@pytest.mark.parametrize("verb", VERBS)
def test_a_token_that_is_not_held_is_lost_and_changes_nothing(broker: Broker, verb: str) -> None:
    token = held(broker, "1")
    broker.settle_one("complete", token, "1", DONE, "", "")
    with broker.unchanged(f"inflight:{W}"):
        assert broker.settle_one(verb, *deliveries(token)[verb]) == b"l"
        assert broker.settle_one(verb, *deliveries(1)[verb]) == b"l"


@pytest.mark.parametrize("verb", VERBS)
def test_a_token_of_another_incarnation_is_lost(broker: Broker, verb: str) -> None:
    broker.register("w2")
    token = held(broker, "1")
    assert broker.settle_one(verb, *deliveries(token)[verb], by="w2") == b"l"
    assert broker.inflight() == {token: value_of(Q, "1")}


def test_an_unregistered_incarnation_is_lost_and_nothing_is_written(broker: Broker) -> None:
    token = held(broker, "1")
    broker.add_dead_letter()
    with broker.unchanged():
        for verb, delivery in deliveries(token).items():
            assert broker.settle("s", (verb, RESULT_TTL_MS, [delivery])) == b"lost"


def test_one_batch_holds_all_verbs_and_answers_in_their_order(broker: Broker) -> None:
    first = held(broker, *"1234567")
    groups = [(verb, RESULT_TTL_MS, [deliveries(first + i, str(i + 1))[verb]]) for i, verb in enumerate(VERBS)]
    groups.insert(2, ("complete", RESULT_TTL_MS, [deliveries(1)["complete"]]))
    groups.append(("complete", RESULT_TTL_MS, []))
    assert broker.settle("s", *groups) == b"ddlddddd"
    assert broker.inflight() == {first + 5: value_of(Q, "6")}
    assert broker.census() == {"4": 1, "5": 1, "6": 1}


@pytest.mark.parametrize("write_many", ["MSETEX", "MSETLATER"])
def test_records_are_written_whether_the_server_takes_many_at_once_or_not(broker: Broker, write_many: str) -> None:
    """With MSETEX, which one of the two servers has, and with a command that none has."""
    broker.commands.write_many = write_many
    first = held(broker, *"123")
    plain = [(first, "1", DONE), (first + 99, "none", DONE), (first + 1, "2", DONE), (first + 2, "3", DONE)]
    assert broker.settle("s", ("plain", RESULT_TTL_MS, plain)) == b"dldd"
    snapshot = broker.snapshot()
    assert [snapshot[f"operation:{id_}"] for id_ in "123"] == [DONE] * 3
    assert all(RESULT_TTL_MS - 5000 < broker.client.pttl(broker.keys.operation(id_)) <= RESULT_TTL_MS for id_ in "123")
    assert "operation:none" not in snapshot
    assert snapshot["metrics"][b"processed"] == b"3"


def test_a_token_settled_twice_in_one_batch_counts_once(broker: Broker) -> None:
    token = held(broker, "1")
    delivery = deliveries(token)["complete"]
    assert broker.settle("s", ("complete", RESULT_TTL_MS, [delivery, delivery])) == b"dl"
    assert broker.snapshot()["metrics"][b"processed"] == b"1"


def test_a_deduplication_key_that_names_another_operation_meanwhile_stays(broker: Broker) -> None:
    token = held(broker, "1", key="k")
    broker.client.hset(broker.keys.prefix + "dedup", "k", "2")
    broker.settle_one("complete", token, "1", DONE, "k", "")
    assert broker.snapshot()["dedup"] == {b"k": b"2"}


@pytest.mark.parametrize(
    "key, verb",
    [
        *(
            (key, verb)
            for key in ("failures", "system_errors", "delayed", "dedup")
            for verb in VERBS
            if verb != "plain"
        ),
        *((key, verb) for key in ("workers", f"inflight:{W}") for verb in VERBS),
    ],
)
def test_a_foreign_type_refuses_the_batch_before_its_first_write(broker: Broker, key: str, verb: str) -> None:
    token = held(broker, "1")
    broker.squat(key)
    with broker.unchanged(), pytest.raises(WrongKeyTypeError):
        broker.settle("s", (verb, RESULT_TTL_MS, [deliveries(token)[verb]]))


@pytest.mark.parametrize("key", ["registry", "ready:normal", "wake", "wake:a", "metrics"])
def test_a_foreign_type_of_an_index_or_marker_does_not_stop_a_release(broker: Broker, key: str) -> None:
    token = held(broker, "1")
    broker.squat(key)
    assert broker.settle_one("release", token) == b"d"
    assert broker.items(Q) == ["1"]


def test_a_release_into_a_list_of_a_foreign_type_waits_in_the_delayed_set(broker: Broker) -> None:
    token = held(broker, "1")
    broker.squat(Q)
    assert broker.settle_one("release", token) == b"d"
    assert [member for member, _ in broker.snapshot()["delayed"]] == [b"%d\n%b" % (token, value_of(Q, "1"))]
    broker.client.delete(broker.keys.prefix + Q)
    broker.make_due()
    assert ids_in(broker.claim().values) == ["1"]


@pytest.mark.parametrize(
    "value", [b"\ngarbage", b"operation:x\nitem", b"ready:high\nitem", b"urgent:a\nitem", b"no line"]
)
def test_a_release_of_what_came_from_no_queue_makes_no_key_outside_the_queues(broker: Broker, value: bytes) -> None:
    """Nobody serves such a list: the item would lie there for ever, or break the key whose place it takes."""
    token = broker.claim(adopt=value).first_token
    before = set(broker.snapshot())
    assert broker.settle_one("release", token) == b"d"
    assert set(broker.snapshot()) - before == {"delayed"}
    assert [member for member, _ in broker.snapshot()["delayed"]] == [b"%d\n%b" % (token, value)]


@pytest.mark.parametrize("previous", [b"s999999999 d", b"x.s99 ddd", b"s", b"\xff", b"s1 d d"])
def test_a_forged_note_of_the_last_settlement_keeps_none_from_being_done(broker: Broker, previous: bytes) -> None:
    token = held(broker, "1")
    broker.client.hset(broker.keys.inflight(W), "#settle", previous)
    assert broker.settle("w.s1", ("release", 0, [(token,)])) == b"d"
    assert broker.items(Q) == ["1"]


def test_a_record_of_a_foreign_type_is_replaced(broker: Broker) -> None:
    token = held(broker, "1")
    broker.squat("operation:1", kind="list")
    assert broker.settle_one("complete", token, "1", DONE, "", "") == b"d"
    assert broker.snapshot()["operation:1"] == DONE


def test_a_thousand_deliveries_are_settled_at_once(broker: Broker) -> None:
    ids = [str(i) for i in range(1000)]
    first = held(broker, *ids)
    group = ("complete", RESULT_TTL_MS, [(first + i, id_, DONE, "", "") for i, id_ in enumerate(ids)])
    assert broker.settle("s1", group) == b"d" * 1000
    assert broker.inflight() == {}
    first = held(broker, *(f"r{i}" for i in ids))
    assert broker.settle("s2", ("release", 0, [(first + i,) for i in reversed(range(1000))])) == b"d" * 1000
    assert broker.items(Q) == [f"r{i}" for i in ids]


def test_a_refused_verdict_sets_the_item_aside_as_it_is_and_rejects_it(broker: Broker) -> None:
    broker.enqueue("normal:a", "1", key="k")
    token, record = broker.claim().first_token, record_of("rejected", "normal:a")
    settlement = ("shelve", RESULT_TTL_MS, [(token, "1", record, "k", "", b"letter", 60_000)])
    assert broker.settle("s1", settlement) == b"d"
    before = broker.snapshot()
    assert before[f"oversized:{token}"] == item_of("1")
    assert 0 < broker.client.pttl(f"{broker.keys.prefix}oversized:{token}") <= 60_000
    assert (before["system_errors"], before["operation:1"]) == ([b"letter"], record)
    assert "dedup" not in before
    assert broker.inflight() == {}
    assert broker.settle("s1", settlement) == b"d"
    assert broker.settle("s2", settlement) == b"l"
    assert broker.snapshot()["system_errors"] == [b"letter"]


def test_a_settlement_of_nothing_takes_the_id_and_changes_nothing_else(broker: Broker) -> None:
    broker.enqueue("normal:a", "1")
    token = broker.claim().first_token
    assert broker.settle("s1") == b""
    assert broker.settle("s1", ("release", 0, [(token,)])) == b""
    assert list(broker.inflight()) == [token]
    assert broker.settle("s2", ("release", 0, [(token,)])) == b"d"
    assert broker.settle("s2") == b"d"
