"""claim.lua: what is ready goes in flight, by priority, in order and in fair turns, and never gets lost on the way."""

from __future__ import annotations

import pytest

from tests.scripts.support import Broker, W, assert_refused, assert_whole, ids_in, item_of, record_of, value_of


def test_a_claim_moves_items_in_flight_under_consecutive_tokens_in_their_order(broker: Broker) -> None:
    broker.enqueue("normal:a", "1", "2", "3")
    before = broker.now_ms()
    claimed = broker.claim(2)
    first = claimed.first_token
    assert claimed.values == [value_of("normal:a", "1"), value_of("normal:a", "2")]
    assert broker.inflight() == {first: claimed.values[0], first + 1: claimed.values[1]}
    assert (claimed.more, claimed.next_due_ms, claimed.wrong_keys) == (True, -1, ())
    assert before <= claimed.now_ms <= broker.now_ms()
    assert broker.items("normal:a") == ["3"]
    assert broker.client.get(broker.keys.prefix + "token") == b"%d" % (first + 1)


def test_tokens_grow_from_claim_to_claim(broker: Broker) -> None:
    broker.enqueue("normal:a", "1", "2")
    first = broker.claim().first_token
    broker.client.set(broker.keys.prefix + "token", first + 10**9)
    assert broker.claim().first_token == first + 10**9 + 1


def test_a_claim_that_finds_nothing_writes_nothing(broker: Broker) -> None:
    with broker.unchanged():
        claimed = broker.claim(5)
        assert (list(claimed.values), claimed.more, claimed.next_due_ms) == ([], False, -1)


@pytest.mark.parametrize("adopt", [b"", b"normal:a\nx"])
def test_an_unregistered_incarnation_is_lost_and_nothing_is_written(broker: Broker, adopt: bytes) -> None:
    broker.enqueue("normal:a", "1")
    broker.add_dead_letter()
    with broker.unchanged():
        assert broker.run(broker.commands.claim(W, "c", 1, adopt=adopt)) is None
        assert broker.run(broker.commands.claim("nobody", "c", 1, adopt=adopt)) is None


@pytest.mark.parametrize("names", [(), ("a",), ("b", "a")])
def test_a_lost_claim_passes_on_the_wake_up_that_it_used(broker: Broker, names: tuple[str, ...]) -> None:
    """A worker that was declared dead may still block on the server, as the first in the line of those who wait."""
    broker.enqueue("normal:a", "1")
    marker = f"{broker.keys.prefix}wake:a" if names else f"{broker.keys.prefix}wake"
    assert broker.client.zpopmin(marker)
    broker.add_dead_letter()
    assert broker.run(broker.commands.claim(W, "c", 1, names)) is None
    assert broker.client.zpopmin(marker)


@pytest.mark.parametrize("names", [(), ("b",)])
def test_a_lost_claim_wakes_nobody_for_nothing(broker: Broker, names: tuple[str, ...]) -> None:
    if names:
        broker.enqueue("normal:a", "1")
        broker.client.delete(f"{broker.keys.prefix}wake", f"{broker.keys.prefix}wake:a")
    broker.add_dead_letter()
    assert broker.run(broker.commands.claim(W, "c", 1, names)) is None
    assert broker.client.keys(f"{broker.keys.prefix}wake*") == []


def test_the_same_claim_id_gives_the_same_tokens_and_values(broker: Broker) -> None:
    broker.enqueue("normal:a", "1", "2", "3")
    claimed = broker.claim(2, claim_id="c1")
    with broker.unchanged():
        again = broker.claim(2, claim_id="c1")
        assert (again.first_token, again.values) == (claimed.first_token, claimed.values)


def test_a_claim_that_comes_after_a_later_one_takes_nothing(broker: Broker) -> None:
    """It was held up on a lost connection, and its sender has long had its answer."""
    broker.enqueue("normal:a", "1", "2", "3")
    broker.claim(claim_id="c9")
    broker.claim(claim_id="c10")
    with broker.unchanged():
        assert list(broker.claim(claim_id="c9").values) == []


@pytest.mark.parametrize("last", [0, 7])
def test_a_claim_without_values_tells_the_token_that_follows_the_last(broker: Broker, last: int) -> None:
    """So its sender knows that every token up to that one was given out by an earlier claim."""
    if last:
        broker.client.set(broker.keys.prefix + "token", last)
    assert broker.claim().first_token == last + 1


def test_a_replay_shows_none_for_what_was_settled_and_the_callback_for_what_became_one(broker: Broker) -> None:
    broker.enqueue("normal:a", "1", "2", "3")
    first = broker.claim(3, claim_id="c1").first_token
    broker.settle_one("complete", first, "1", b"r", "", "")
    broker.settle_one("complete", first + 1, "2", b"r", "", b"normal:a\ncallback")
    again = broker.claim(3, claim_id="c1")
    assert again.values == [None, b"normal:a\ncallback", value_of("normal:a", "3")]


def test_a_claim_id_of_one_incarnation_means_nothing_to_another(broker: Broker) -> None:
    broker.register("w2")
    broker.enqueue("normal:a", "1", "2")
    assert ids_in(broker.claim(claim_id="c1").values) == ["1"]
    assert ids_in(broker.claim(claim_id="c1", by="w2").values) == ["2"]


def test_high_goes_before_normal_and_normal_before_low(broker: Broker) -> None:
    for queue in ("low:a", "normal:a", "high:a"):
        broker.enqueue(queue, f"{queue}1", f"{queue}2")
    assert ids_in(broker.claim(5).values) == ["high:a1", "high:a2", "normal:a1", "normal:a2", "low:a1"]


@pytest.mark.parametrize("names", [(), ("a", "b", "c")])
def test_queues_of_one_priority_take_turns(broker: Broker, names: tuple[str, ...]) -> None:
    for name in "abc":
        broker.enqueue(f"normal:{name}", *(f"{name}{i}" for i in range(4)))
    assert ids_in([v for _ in range(6) for v in broker.claim(1, names).values]) == ["a0", "b0", "c0", "a1", "b1", "c1"]
    assert sorted(ids_in(broker.claim(3, names).values)) == ["a2", "b2", "c2"]


def test_what_one_queue_does_not_fill_goes_to_the_others(broker: Broker) -> None:
    broker.enqueue("normal:a", "a1")
    broker.enqueue("normal:b", *(f"b{i}" for i in range(9)))
    assert len(broker.claim(8).values) == 8


def test_a_worker_of_some_queues_takes_from_those_only(broker: Broker) -> None:
    broker.enqueue("high:other", "x")
    broker.enqueue("low:a", "1")
    claimed = broker.claim(5, ["a", "unknown"])
    assert (ids_in(claimed.values), claimed.more) == (["1"], False)
    assert broker.items("high:other") == ["x"]


@pytest.mark.parametrize("names, marker", [((), "wake"), (("a",), "wake:a")])
def test_a_claim_that_leaves_work_wakes_another_worker_of_the_same_queues(
    broker: Broker, names: tuple[str, ...], marker: str
) -> None:
    broker.enqueue("normal:a", "1", "2")
    broker.client.delete(broker.keys.prefix + marker)
    assert broker.claim(1, names).more
    assert broker.score(marker) == 0
    broker.client.delete(broker.keys.prefix + marker)
    broker.claim(5, names)
    assert broker.score(marker) is None


def test_a_queue_found_empty_leaves_the_index_and_comes_back_with_the_next_item(broker: Broker) -> None:
    broker.enqueue("normal:a", "1")
    broker.claim(2)
    assert "ready:normal" not in broker.snapshot()
    broker.enqueue("normal:a", "2")
    assert broker.score("ready:normal", "a") is not None


def test_adopt_takes_a_value_in_flight_instead_of_popping_and_is_replayed(broker: Broker) -> None:
    broker.enqueue("normal:a", "1")
    value = value_of("normal:a", "mine")
    claimed = broker.claim(1, claim_id="c1", adopt=value)
    assert claimed.values == [value]
    with broker.unchanged():
        again = broker.claim(1, claim_id="c1", adopt=value)
        assert (again.first_token, again.values) == (claimed.first_token, [value])
    assert broker.items("normal:a") == ["1"]


def test_due_items_join_the_tail_of_their_lists_in_due_order(broker: Broker) -> None:
    broker.enqueue("normal:a", "1")
    for i in range(2, 5):
        broker.enqueue("normal:a", str(i), delay_ms=60_000)
    broker.enqueue("low:b", "b", delay_ms=60_000)
    broker.make_due()
    assert ids_in(broker.claim(9).values) == ["1", "2", "3", "4", "b"]
    assert broker.client.zcard(broker.keys.delayed) == 0


def test_an_item_that_is_not_due_stays_and_its_time_is_told(broker: Broker) -> None:
    broker.enqueue("normal:a", "1", delay_ms=60_000)
    broker.enqueue("normal:a", "2", delay_ms=30_000)
    claimed = broker.claim(1)
    assert list(claimed.values) == []
    assert claimed.next_due_ms == int(broker.client.zrange(broker.keys.delayed, 0, 0, withscores=True)[0][1])


@pytest.mark.parametrize("names", [(), ("a",)])
def test_a_promotion_wakes_workers_of_all_queues_and_of_that_queue(broker: Broker, names: tuple[str, ...]) -> None:
    """A worker that serves one queue promotes for all: those that sleep until a later due time must hear of it."""
    broker.enqueue("normal:b", "1", "2", delay_ms=60_000)
    broker.make_due()
    broker.client.delete(broker.keys.wake(), broker.keys.wake("b"))
    broker.claim(1, names)
    assert broker.items("normal:b"), "something must be left to wake for"
    assert broker.score("wake:b") == 0
    assert broker.score("wake") == 0


@pytest.mark.parametrize(
    "member, value",
    [
        (b"garbage", b"\ngarbage"),
        (b"", b"\n"),
        (b"1\nnormal:a", b"\n1\nnormal:a"),
        (b"1\nurgent:a\nitem", b"urgent:a\nitem"),
        (b"1\noperation:x\nitem", b"operation:x\nitem"),
        (b"1\nnormal:a b\nitem", b"normal:a b\nitem"),
        (b"1\nnormal:squatted\nitem", b"normal:squatted\nitem"),
        (b"1\n\xff\x00\nit\nem", b"\xff\x00\nit\nem"),
    ],
)
def test_a_delayed_member_that_no_list_can_hold_goes_in_flight_as_it_is(
    broker: Broker, member: bytes, value: bytes
) -> None:
    broker.squat("normal:squatted")
    broker.client.zadd(broker.keys.delayed, {member: 1})
    broker.enqueue("normal:a", "1")
    claimed = broker.claim(5)
    assert claimed.values == [value, value_of("normal:a", "1")]
    assert list(broker.inflight().values()) == claimed.values
    assert broker.client.zcard(broker.keys.delayed) == 0


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_list_of_a_foreign_type_is_skipped_and_reported(broker: Broker, names: tuple[str, ...]) -> None:
    broker.enqueue("normal:a", "gone")
    broker.enqueue("normal:b", "1")
    broker.squat("normal:a")
    claimed = broker.claim(2, names)
    assert claimed.values == list(broker.inflight().values()) == [value_of("normal:b", "1")]
    assert claimed.wrong_keys == ((broker.keys.prefix + "normal:a").encode(),)


@pytest.mark.parametrize("key", ["workers", "token", f"inflight:{W}"])
def test_a_foreign_type_refuses_the_claim_before_its_first_write(broker: Broker, key: str) -> None:
    broker.enqueue("normal:a", "1")
    broker.squat(key, kind="list")
    assert_refused(broker, broker.commands.claim(W, "c", 5))


@pytest.mark.parametrize("names", [(), ("a", "b")])
@pytest.mark.parametrize("key", ["ready:high", "ready:normal", "delayed", "registry", "wake", "wake:a", "wake:b"])
def test_a_foreign_type_of_an_index_or_marker_loses_no_item(broker: Broker, key: str, names: tuple[str, ...]) -> None:
    broker.enqueue("high:a", "1", "2", "3")
    broker.enqueue("normal:b", "4", "5")
    broker.enqueue("normal:b", "6", delay_ms=60_000)
    broker.make_due()
    broker.squat(key)
    for wanted in (1, 2, 9):
        assert_whole(broker, broker.commands.claim(W, f"c{wanted}", wanted, names))


@pytest.mark.parametrize("last", ["-5", "1.5", "nan", "inf", "9e300", "9007199254740993", "1" + "0" * 400, "0x", "abc"])
def test_a_last_token_that_is_no_number_or_out_of_range_gives_no_token_twice(broker: Broker, last: str) -> None:
    """Two items under one token are one item: the other one would be lost."""
    broker.enqueue("normal:a", *map(str, range(30)))
    for _ in range(10):
        broker.client.set(broker.keys.prefix + "token", last)
        broker.claim(3)
    assert len(broker.inflight()) == 30
    assert broker.census() == {str(i): 1 for i in range(30)}


def test_a_lost_last_token_gives_no_token_again_that_is_in_flight(broker: Broker) -> None:
    """Not even when the server's clock has been set back since."""
    broker.enqueue("normal:a", "1", "2")
    broker.client.set(broker.keys.prefix + "token", broker.now_ms() * 1000 + 10**9)
    first = broker.claim().first_token
    broker.client.delete(broker.keys.prefix + "token")
    assert broker.claim().first_token > first


@pytest.mark.parametrize(
    "previous",
    [b"c999999999 1 1", b"x.c9999 1 1", b"c2 9 999999999999", b"c2 99999999999999999999 3", b"c2 1 %b" % (b"9" * 400)],
)
def test_a_forged_note_of_the_last_claim_keeps_no_claim_from_bringing_items(broker: Broker, previous: bytes) -> None:
    broker.enqueue("normal:a", "1", "2", "3")
    broker.client.hset(broker.keys.inflight(W), "#claim", previous)
    claimed = [broker.claim(claim_id=f"w.c{i}") for i in range(2, 5)] + [broker.claim(claim_id="c2")]
    assert sum(len(each.values) for each in claimed) == 3


@pytest.mark.parametrize("previous", [b"", b"c", b"c 1", b"c x y", b"c 5 0", b"\xff"])
def test_a_note_of_the_last_claim_that_makes_no_sense_is_overwritten(broker: Broker, previous: bytes) -> None:
    broker.enqueue("normal:a", "1")
    broker.client.hset(broker.keys.inflight(W), "#claim", previous)
    assert ids_in(broker.claim(claim_id="d").values) == ["1"]


@pytest.mark.parametrize("score", ["-inf", "inf", "1.5"])
def test_odd_due_times_neither_lose_nor_stop_anything(broker: Broker, score: str) -> None:
    broker.client.zadd(broker.keys.delayed, {b"1\nnormal:a\n" + item_of("1"): float(score)})
    broker.enqueue("normal:a", "2")
    broker.claim(5)
    assert broker.census() == {"1": 1, "2": 1}


def test_stale_names_in_the_index_are_cleared_within_bounded_steps(broker: Broker) -> None:
    broker.client.zadd(broker.keys.prefix + "ready:normal", {f"gone{i}": i for i in range(1500)})
    broker.enqueue("normal:a", "1")
    claims = [broker.claim(1) for _ in range(20)]
    assert ids_in([value for claimed in claims for value in claimed.values]) == ["1"]
    assert claims[0].more
    assert broker.client.zcard(broker.keys.prefix + "ready:normal") <= 1


def test_a_thousand_items_of_many_queues_are_claimed_at_once_and_replayed(broker: Broker) -> None:
    for name in "abcdefghij":
        broker.enqueue(f"normal:{name}", *(f"{name}{i}" for i in range(150)))
    claimed = broker.claim(1000, claim_id="c1")
    assert len(claimed.values) == len(broker.inflight()) == 1000
    assert broker.claim(1000, claim_id="c1").values == claimed.values
    assert broker.census().total() == 1500


def test_a_thousand_due_items_are_promoted_in_order(broker: Broker) -> None:
    ids = [f"{i:04}" for i in range(1000)]
    broker.enqueue("normal:a", *ids, delay_ms=60_000)
    broker.make_due()
    assert ids_in(broker.claim(1000).values) == ids


def test_a_blocked_worker_wakes_for_an_enqueued_item_and_only_once(broker: Broker) -> None:
    assert not broker.run(broker.commands.wait_for_wake((), 0.01))
    broker.enqueue("normal:a", "1")
    assert broker.run(broker.commands.wait_for_wake((), 5))
    assert not broker.run(broker.commands.wait_for_wake((), 0.01))
    assert not broker.run(broker.commands.wait_for_wake(["b"], 0.01))
    assert broker.run(broker.commands.wait_for_wake(["b", "a"], 5))


def test_a_retry_waits_behind_what_is_ready(broker: Broker) -> None:
    broker.enqueue("normal:a", "1", "2")
    record = record_of("delayed", "normal:a")
    broker.settle_one("retry", broker.claim().first_token, "1", record, value_of("normal:a", "1"), 0)
    assert ids_in(broker.claim(2).values) == ["2", "1"]


def test_a_claim_that_names_many_queues_costs_few_commands(broker: Broker) -> None:
    """However many of them are ready."""
    names = [f"q{i}" for i in range(3000)]
    for name in ("q9", "q1000"):
        broker.enqueue(f"low:{name}", f"in {name}")
    with broker.counting() as few_ready:
        assert len(broker.claim(1, names).values) == 1
    assert few_ready.total() < 40
    assert ids_in(broker.claim(5, names).values) == ["in q1000"]
    for name in names:
        broker.client.lpush(f"{broker.keys.prefix}normal:{name}", b"x")
    broker.client.zadd(f"{broker.keys.prefix}ready:normal", {name: i for i, name in enumerate(names)})
    for most in (400, 40):  # from the second claim on, all markers lie there
        with broker.counting() as all_ready:
            assert len(broker.claim(3, names).values) == 3
        assert all_ready.total() < most


def test_queues_are_served_in_turn_whether_few_or_many_others_are_ready(broker: Broker) -> None:
    for name in ("c", "a", "b"):
        broker.enqueue(f"normal:{name}", f"in {name}")
    assert ids_in(broker.claim(1, ["a", "b", "c"]).values) == ["in c"]
    for i in range(100):
        broker.enqueue(f"normal:other{i}", str(i))
    assert ids_in(broker.claim(5, ["b", "a", "a"]).values) == ["in a", "in b"]
