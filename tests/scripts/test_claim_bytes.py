"""claim.lua in bytes: what a claim promotes, pops and answers is bounded, and no item is too large to get by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from queue_system.broker.commands import Commands
from queue_system.model.oversized import read_oversized
from tests.scripts.support import Broker, ids_in, item_of, value_of

KB, MIB = 1000, 1024 * 1024
BUDGET = 8 * MIB


def sized(operation_id: str, size: int) -> bytes:
    """Return an item of about so many bytes."""
    return b'{"operation_id":"%b","processor":"p","entity":"%b"}' % (operation_id.encode(), b"x" * size)


def push(broker: Broker, queue: str, sizes: Sequence[int]) -> list[str]:
    """Let a foreign client push items of these sizes; return their ids, the next one first."""
    priority, name = queue.split(":")
    for number, size in enumerate(sizes):
        broker.client.lpush(broker.keys.prefix + queue, sized(f"{name}{number}", size))
    broker.client.sadd(broker.keys.registry, broker.keys.prefix + queue)
    broker.client.zadd(broker.keys.prefix + f"ready:{priority}", {name: 1})
    return [f"{name}{number}" for number in range(len(sizes))]


def drain(broker: Broker, wanted: int = 400, names: Sequence[str] = ()) -> tuple[list[str], list[int]]:
    """Claim until nothing is left; return all ids in the order in which they came, and the bytes of each claim."""
    came: list[str] = []
    sizes: list[int] = []
    expected = 0
    for number in range(1000):
        command = broker.commands.claim("w1", f"d{1000 + number}", wanted, names, expected=expected)
        claimed = broker.run(command)
        assert claimed is not None
        came += ids_in(claimed.values)
        sizes.append(sum(len(value) for value in claimed.values if value is not None))
        assert claimed.largest <= max(sizes)
        expected = claimed.largest
        if not claimed.more:
            return came, sizes
    raise AssertionError("claims go on without an end")


@pytest.mark.parametrize(
    "sizes, names",
    [
        ([400 * KB] * 60, ()),
        ([10] * 50 + [400 * KB] * 60, ("a",)),
        ([10] * 399 + [MIB] * 30, ()),
        ([10, 400 * KB] * 40, ("a",)),
        ([3 * MIB, 10, 10, 3 * MIB, 10, 3 * MIB, 3 * MIB], ()),
        # A claim looks at some of those that it is about to take; it answers no more even if it finds only small ones.
        ([10 if i in (0, 199, 200, 399) else 100 * KB for i in range(400)], ()),
    ],
    ids=["large", "small then large", "a turn of small ones, then large", "in turn", "larger than a few", "hidden"],
)
def test_items_of_any_sizes_come_in_their_order_about_eight_mebibytes_at_once(
    broker: Broker, sizes: list[int], names: tuple[str, ...]
) -> None:
    ids = push(broker, "normal:a", sizes)
    came, bytes_ = drain(broker, names=names)
    assert came == ids
    assert max(bytes_) < 2 * BUDGET
    assert len(bytes_) <= 3 + 2 * sum(sizes) // BUDGET, "no claim brings less than it could"


def test_queues_take_turns_whatever_their_items_weigh(broker: Broker) -> None:
    push(broker, "normal:a", [MIB] * 20)
    push(broker, "normal:b", [10] * 20)
    push(broker, "high:c", [MIB] * 5)
    first = ids_in(broker.claim(20).values)
    assert first[:5] == [f"c{i}" for i in range(5)]
    came, _ = drain(broker, wanted=20)
    everything = first + came
    assert [id_ for id_ in everything if id_[0] == "a"] == [f"a{i}" for i in range(20)]
    assert everything.index("b0") < everything.index("a19")
    assert len(everything) == 45


@pytest.mark.parametrize("size", [800 * KB])
def test_what_is_due_is_promoted_about_eight_mebibytes_at_once(broker: Broker, size: int) -> None:
    items = {b"%03d\nlow:a\n%b" % (i, sized(f"{i:03}", size)): i + 1 for i in range(30)}
    broker.client.zadd(broker.keys.delayed, items)
    assert broker.claim(1).more
    promoted = broker.client.llen(broker.keys.prefix + "low:a")
    assert BUDGET / 2 < promoted * size < 2 * BUDGET
    came, _ = drain(broker)
    assert came == [f"{i:03}" for i in range(30)]


def delay(broker: Broker, queue: str, ids: Sequence[str], due_ms: int) -> None:
    """Put operations of a queue into the delayed set."""
    members = {b"%b\n%b\n%b" % (id_.encode(), queue.encode(), item_of(id_)): due_ms for id_ in ids}
    broker.client.zadd(broker.keys.delayed, members)


@pytest.mark.parametrize("due", [1, 2, 17, 18, 1000, 1001])
def test_what_is_not_due_stays_however_much_is_due(broker: Broker, due: int) -> None:
    delay(broker, "normal:a", [f"{i:04}" for i in range(due)], 1)
    delay(broker, "normal:a", ["later"], broker.now_ms() + 60_000)
    came = [id_ for _ in range(3) for id_ in ids_in(broker.claim(800).values)]
    assert came == [f"{i:04}" for i in range(due)]
    assert broker.client.zcard(broker.keys.delayed) == 1


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_what_is_due_and_high_goes_before_all_that_is_due_and_low(broker: Broker, names: tuple[str, ...]) -> None:
    delay(broker, "low:a", [f"low{i:04}" for i in range(2500)], 1)
    delay(broker, "normal:b", ["normal"], 2)
    delay(broker, "high:b", ["high"], 3)
    came = [id_ for _ in range(6) for id_ in ids_in(broker.claim(2, names).values)]
    assert came[:4] == ["high", "normal", "low0000", "low0001"]


def test_a_high_one_that_waits_is_taken_while_low_ones_are_promoted(broker: Broker) -> None:
    delay(broker, "low:a", [f"low{i:04}" for i in range(2500)], 1)
    broker.enqueue("high:b", "high")
    broker.enqueue("low:c", "c")
    claimed = broker.claim(5)
    assert ids_in(claimed.values) == ["high"]
    assert claimed.more


def test_a_worker_of_another_queue_gets_its_due_item_after_few_claims(broker: Broker) -> None:
    delay(broker, "normal:a", [f"{i:05}" for i in range(5500)], 1)
    delay(broker, "normal:b", ["mine"], 2)
    claims = 0
    while not (claimed := broker.claim(1, ["b"])).values:
        claims += 1
        assert claimed.more, "it would fall asleep"
    assert ids_in(claimed.values) == ["mine"]
    assert claims < 6


@pytest.fixture
def small(broker: Broker) -> Broker:
    """The scripts of workers that get items of up to 1,000 bytes."""
    broker.commands = Commands(broker.keys, 100, most_sent=1000, kept_ms=60_000)
    return broker


def assert_set_aside(broker: Broker, value: bytes, token: int, item: bytes, queue: bytes = b"normal:a") -> None:
    """The value tells of the item, which is kept byte for byte."""
    header, _, stub = value.partition(b"\n")
    found = read_oversized(stub, token)
    assert header == queue
    assert found is not None
    assert found.kept_in == f"{broker.keys.prefix}oversized:{token}"
    assert broker.client.get(found.kept_in) == item
    assert 0 < broker.client.pttl(found.kept_in) <= 60_000
    assert (found.size, found.sha1) == (len(item), hashlib.sha1(item, usedforsecurity=False).hexdigest())
    assert found.head == item[:1024]
    assert len(value) < 4096


FOREIGN = [sized("big", 2000), b"\x00\xff\r\n" * 500, b'{"operation_id":"' + b"x" * 2000, "é".encode() * 1000]


@pytest.mark.parametrize("item", FOREIGN)
def test_an_item_too_large_to_be_sent_is_kept_as_it_is_and_told_of(small: Broker, item: bytes) -> None:
    small.enqueue("normal:a", "1")
    small.client.lpush(small.keys.prefix + "normal:a", item)
    small.enqueue("normal:a", "2", nonce="m")
    claimed = small.claim(5, claim_id="c1")
    assert claimed.values[0] == value_of("normal:a", "1")
    told = claimed.values[1]
    assert told is not None
    assert_set_aside(small, told, claimed.first_token + 1, item)
    assert small.inflight()[claimed.first_token + 1] == told
    assert small.claim(5, claim_id="c1").values == claimed.values
    assert ids_in([*claimed.values[2:], *small.claim(5, claim_id="c2").values]) == ["2"]


def test_an_id_that_stands_first_is_told_of_a_large_item(small: Broker) -> None:
    small.client.zadd(small.keys.prefix + "ready:normal", {"a": 1})
    small.client.lpush(small.keys.prefix + "normal:a", sized("big", 2000))
    claimed = small.claim()
    told = claimed.values[0] or b""
    found = read_oversized(told.partition(b"\n")[2], claimed.first_token)
    assert found is not None
    assert found.operation_id == "big"
    assert read_oversized(told.partition(b"\n")[2], claimed.first_token + 1) is None, "a copy of it tells of nothing"


@pytest.mark.parametrize("put", ["adopted", "delayed", "delayed for no queue"])
def test_a_large_item_is_set_aside_wherever_it_comes_from(small: Broker, put: str) -> None:
    item = sized("big", 2000)
    queue = b"no queue" if put == "delayed for no queue" else b"normal:a"
    if put == "adopted":
        claimed = small.claim(adopt=b"%b\n%b" % (queue, item))
    else:
        small.client.zadd(small.keys.delayed, {b"1\n%b\n%b" % (queue, item): 1})
        claimed = small.claim()
    assert claimed.values[0] is not None
    assert_set_aside(small, claimed.values[0], claimed.first_token, item, queue)
