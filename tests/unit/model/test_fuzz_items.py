"""Hostile items: any bytes give an operation or one typed error, and whatever is accepted can be settled and buried."""

from __future__ import annotations

import base64
import gc
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_system.errors import UndecodableItemError
from queue_system.execution.delivery import Delivery
from queue_system.execution.settlement import Settler, Timing
from queue_system.model.dead_letter import encode_dead_letter
from queue_system.model.nesting import MAX_DEPTH
from queue_system.model.operation import Operation, change_item, decode_item
from queue_system.model.verdict import Complete, Fail, Raised, Reject, Release, Retry, judge

MEBIBYTE = 1024 * 1024
SETTLER = Settler("host:1", 300.0, MEBIBYTE)
VERDICTS = (Complete({"a": 1}), Retry(1.5, "boom", "E"), Fail("boom", "E"), Reject("boom", "E"), Release())
ITEM = (
    b'{"operation_id":"op-1","entity":{"to":"ada@example.org","n":[1,2.5,null]},"processor":"work",'
    b'"processor_module":"shop","timestamp":1.5,"attempts":2,"max_attempts":5,"delays":[1,2],"timeout":2.0,'
    b'"retry_timeout":9.5,"first_attempt_time":3.25,"on_success":"done","on_failure":"failed","crashes":1,'
    b'"deduplication_key":"key","nonce":"abc","future":{"a":[1.10, "\\u0041"]}}'
)


def with_entity(entity: bytes) -> bytes:
    return b'{"processor":"p","entity":%b}' % entity


def with_member(name: bytes, value: bytes) -> bytes:
    return b'{"processor":"p","%b":%b}' % (name, value)


def listed(unit: bytes, size: int) -> bytes:
    """An item whose entity is a list of that member, of about that many bytes in all."""
    return with_entity(b"[%b]" % b",".join([unit] * (size // (len(unit) + 1))))


def quoted(unit: bytes, size: int) -> bytes:
    return with_entity(b'"%b"' % (unit * (size // len(unit))))


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "deep arrays": lambda n: with_entity(b"[" * (n // 2) + b"]" * (n // 2)),
    "deep objects": lambda n: with_entity(b'{"a":' * (n // 6) + b"1" + b"}" * (n // 6)),
    "deep and unclosed": lambda n: with_entity(b'[{"a":' * (n // 6)),
    "deep in an unknown member": lambda n: with_member(b"x", b"[" * (n // 2) + b"]" * (n // 2)),
    "deep among texts of brackets": lambda n: with_entity(b'["]]]}\\"]]",' * (n // 12)),
    "deep among escaped backslashes": lambda n: with_entity(b'["]\\\\",' * (n // 7)),
    "digits": lambda n: with_entity(b"7" * n),
    "digits of attempts": lambda n: with_member(b"attempts", b"9" * n),
    "digits of crashes": lambda n: with_member(b"crashes", b"9" * n),
    "digits of a time": lambda n: with_member(b"timestamp", b"9" * n),
    "digits in an unknown member": lambda n: with_member(b"x", b"9" * n),
    "digits of a fraction": lambda n: with_entity(b"1." + b"7" * n),
    "digits before an exponent": lambda n: with_entity(b"7" * n + b"e-%d" % n),
    "digits of an exponent": lambda n: with_entity(b"1e" + b"9" * n),
    "zeros of a fraction": lambda n: with_entity(b"0." + b"0" * n + b"1"),
    "fractions": lambda n: listed(b"0." + b"123456789" * 40, n),
    "not a number": lambda n: listed(b"NaN", n),
    "infinities": lambda n: listed(b"-Infinity", n),
    "floats": lambda n: listed(b"1e0", n),
    "integers": lambda n: listed(b"300", n),
    "empty arrays": lambda n: listed(b"[]", n),
    "empty objects": lambda n: listed(b"{}", n),
    "arrays of one": lambda n: listed(b"[0]", n),
    "objects of one": lambda n: listed(b'{"a":0}', n),
    "short texts": lambda n: listed(b'"ab"', n),
    "long text": lambda n: quoted(b"a", n),
    "long text outside ASCII": lambda n: quoted("a€😀".encode(), n),
    "escapes": lambda n: quoted(b"\\u0041", n),
    "backslashes": lambda n: quoted(b"\\\\", n),
    "escaped quotes": lambda n: quoted(b'\\"', n),
    "escaped NUL": lambda n: quoted(b"\\u0000", n),
    "many members": lambda n: with_entity(b"{%b}" % b",".join([b'"%x":0' % i for i in range(n // 10)])),
    "doubled names": lambda n: with_entity(b'{"a":0%b}' % (b',"a":0' * (n // 6))),
    "doubled members": lambda n: b'{"processor":"p"%b}' % (b',"processor":"p"' * (n // 16)),
    "doubled ids": lambda n: b'{"operation_id":"a","processor":"p","operation_id":"b","operation_id":"a\\"b"}',
    "spaces": lambda n: b" " * n + with_entity(b"1"),
    "commas": lambda n: with_entity(b"[%b]" % (b"," * n)),
    "NUL bytes": lambda n: b"\x00" * n,
    "byte order mark": lambda n: b"\xef\xbb\xbf" + quoted(b"a", n),
    "UTF-16": lambda n: quoted(b"a", n // 2).decode().encode("utf-16"),
    "UTF-32": lambda n: quoted(b"a", n // 4).decode().encode("utf-32"),
    "overlong UTF-8": lambda n: quoted(b"\xc0\xaf", n),
    "overlong UTF-8 in a name": lambda n: with_member(b"\xc0\xaf" * (n // 2), b"1"),
    "surrogates in UTF-8": lambda n: quoted(b"\xed\xa0\x80", n),
    "escaped lone surrogates": lambda n: quoted(b"\\ud800", n),
    "escaped pairs in the wrong order": lambda n: quoted(b"\\udc00\\ud800", n),
    "lone surrogate in a name": lambda n: with_member(b"\\ud800", b"1"),
    "a header": lambda n: b"1|normal|0|0|0||op\n" + quoted(b"a", n),
    "random bytes": lambda n: bytes(range(256)) * (n // 256),
}
SMALL_PARTS = {
    "empty arrays", "empty objects", "arrays of one", "objects of one", "short texts", "many members",
    "deep among escaped backslashes",
}  # fmt: skip
"""An object of 50 bytes or more for each few bytes: Python cannot hold them in ten times the size."""


def accepted(item: bytes) -> Operation | None:
    """Decode an item; None if the one error says why not, in a short line."""
    try:
        return decode_item(item)
    except UndecodableItemError as error:
        reason = str(error)
    assert reason.isprintable()
    assert 0 < len(reason) < 500
    return None


def check_settles(item: bytes, operation: Operation) -> None:
    """That it runs and every verdict over it can be written, and what goes back to a list can be decoded again.

    An error there would end a slot and leave the operation in flight for ever.
    """
    delivery = Delivery("incarnation", 1, b"normal:p", item, operation, 0.0)
    assert SETTLER.running(delivery, 1, 2).verb == "running"
    for verdict in (*VERDICTS, judge(operation, Raised("boom", "E"), 1e9, 1e9 + 1)):
        settlement = SETTLER.settle(delivery, verdict, Timing(1, 2, 0.1))
        if settlement.follow_up:
            assert decode_item(settlement.follow_up.partition(b"\n")[2]).phase


def check_dead_letter(item: bytes) -> None:
    """The dead letter is JSON, and the item's bytes can be had from it."""
    letter = encode_dead_letter(item, b"normal:p", "reason", "E", 1.0)
    members = msgspec.json.decode(letter, type=dict[str, msgspec.Raw])
    assert (bytes(members["failure_reason"]), bytes(members["queue"])) == (b'"reason"', b'"normal:p"')
    if accepted(item) is None or change_item(item, {}) != item:
        assert base64.b64decode(msgspec.json.decode(members["raw_base64"]), validate=True) == item


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_item_is_an_operation_that_can_be_settled_or_one_typed_error(kind: str) -> None:
    item = HOSTILE[kind](MEBIBYTE)
    operation = accepted(item)
    if operation is not None:
        check_settles(item, operation)
    check_dead_letter(item)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", HOSTILE)
def test_decoding_takes_a_small_multiple_of_the_memory_of_the_item(kind: str) -> None:
    """Ten times, and three times that if it consists of nothing but small parts."""
    item = HOSTILE[kind](MEBIBYTE // 8)
    tracemalloc.start()
    try:
        accepted(item)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= (30 if kind in SMALL_PARTS else 10) * len(item) + 65_536


@pytest.mark.parametrize("kind", ["empty arrays", "deep arrays", "commas"])
@pytest.mark.parametrize("collects", [True, False])
def test_decoding_leaves_the_collection_of_garbage_as_it_was(kind: str, collects: bool) -> None:
    item = HOSTILE[kind](10_000)
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        accepted(item)
        after = gc.isenabled()
    finally:
        (gc.enable if before else gc.disable)()
    assert after is collects


@pytest.mark.timeout(30)
def test_a_text_of_100_mib_is_decoded_or_refused_without_many_copies() -> None:
    item = quoted(b"a", 100 * MEBIBYTE)
    tracemalloc.start()
    try:
        operation = accepted(item)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert operation is None or len(operation.entity) == 100 * MEBIBYTE
    assert peak <= 3 * len(item)


@pytest.mark.parametrize(
    "inner, levels", [(b"[%b]", 1), (b'{"a":%b}', 1), (b'[{"]}":%b}]', 2), (b'{"\\\\\\"[":["[{",%b,"\\\\"]}', 2)]
)
@pytest.mark.parametrize("member", [b"entity", b"unknown"])
def test_the_limit_of_nesting_is_exact_whatever_texts_stand_in_between(
    inner: bytes, levels: int, member: bytes
) -> None:
    """The item itself is the first level; brackets in texts count for nothing."""

    def nested(depth: int) -> bytes:
        value = b'"%b"' % (b"[" * 2000)
        for _ in range(depth):
            value = inner % value
        return with_member(member, value)

    deepest = (MAX_DEPTH - 1) // levels
    assert accepted(nested(deepest)) is not None
    with pytest.raises(UndecodableItemError, match=f"deeper than {MAX_DEPTH} levels"):
        decode_item(nested(deepest + 1))


def written(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Write members as they are, doubled and broken ones included."""
    return b"{%b}" % b", ".join([b"%b: %b" % pair for pair in pairs])


numbers = st.sampled_from([
    b"0", b"-0", b"1.10", b"1e400", b"-1E-999", b"1e308", b"9223372036854775807", b"9223372036854775808",
    b"18446744073709551616", b"9" * 400, b"9" * 4300, b"-" + b"9" * 4300, b"9" * 4301, b"01", b"1.", b".5", b"+1",
    b"0x1", b"NaN", b"Infinity",
]) | st.integers().map(lambda n: b"%d" % n)  # fmt: skip
pieces = st.sampled_from([
    b"a", b" ", b"\\n", b"\n", b"\t", b"\x00", b"\\u0000", b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\u2028", b"\\",
    b"\\x", b"\xc3\xa9", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b'\\"', b"\\\\",
    b"[", b"]", b"{", b"}", b"\x1b[31m", b"\xe2\x80\xae",
])  # fmt: skip
texts = st.lists(pieces, max_size=6).map(lambda parts: b'"%b"' % b"".join(parts))
literals = st.sampled_from([b"null", b"true", b"false", b"nul", b"", b"{}", b"[]", b"[", b"{"])
values = st.recursive(
    numbers | texts | literals,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: b"[%b]" % b",".join(parts))
        | st.lists(st.tuples(texts, inner), max_size=3).map(written)
    ),
    max_leaves=6,
)
names = st.sampled_from([b'"%b"' % name.encode() for name in Operation.__struct_fields__]) | texts
almost_items = st.lists(st.tuples(names, values), max_size=8)


@given(almost_items, st.booleans())
@example([(b'"attempts"', b"9" * 4300)], True)
@example([(b'"crashes"', b"9" * 4300), (b'"on_failure"', b'"f"')], True)
@example([(b'"first_attempt_time"', b"1e308"), (b'"on_success"', b'"f"')], True)
@example([(b'"operation_id"', b'"a"'), (b'"operation_id"', b'"b"')], True)
@example([(b'"attempts"', b"-1")], True)
@example([(b'"attempts"', b"%d" % (2**64 - 1))], True)
@example([(b'"timestamp"', b"1e308")], True)
@example([(b'"timestamp"', b"-1e308")], True)
@example([(b'"first_attempt_time"', b"-1e308"), (b'"retry_timeout"', b"1.0")], True)
def test_whatever_json_is_accepted_can_be_settled_and_buried(pairs: list[tuple[bytes, bytes]], named: bool) -> None:
    item = written([(b'"processor"', b'"p"'), *pairs] if named else pairs)
    operation = accepted(item)
    check_dead_letter(item)
    if operation is None:
        return
    check_settles(item, operation)
    once = change_item(item, {})
    assert change_item(once, {}) == once
    assert decode_item(once) == operation
    assert decode_item(change_item(item, {"attempts": 7})).attempts == 7


@st.composite
def damaged_items(draw: st.DrawFn) -> bytes:
    """A good item to which a few things happened."""
    item = ITEM
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(item)))
        end = draw(st.integers(start, min(len(item), start + 12)))
        put = draw(pieces | st.binary(max_size=3) | st.just(item[start:end] * 2))
        item = item[:start] + put + item[end:]
    return item


@given(damaged_items())
@example(ITEM)
def test_a_damaged_item_is_an_operation_that_can_be_settled_or_one_typed_error(item: bytes) -> None:
    operation = accepted(item)
    check_dead_letter(item)
    if operation is not None:
        check_settles(item, operation)


@given(
    st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")),
    st.binary(max_size=30),
)
@example(b"", b"\xff")
@example(b" null\n", b"")
@example(b"[1]", b"\xff")
@example(b"{}", b"")
@example(b'{"a":', b"\xff")
def test_any_bytes_of_any_queue_can_be_buried(item: bytes, queue: bytes) -> None:
    letter = msgspec.json.decode(encode_dead_letter(item, queue, "reason", "E", 1.0))
    assert letter["queue"] == queue.decode(errors="replace")
    check_dead_letter(item)


@given(st.binary(max_size=300) | damaged_items(), st.integers(0, 200))
def test_what_is_too_large_is_kept_as_it_came(item: bytes, max_item_bytes: int) -> None:
    letter = msgspec.json.decode(encode_dead_letter(item, b"low:q", "reason", "E", 1.0, max_item_bytes=max_item_bytes))
    if len(item) > 2 * max_item_bytes + 100_000 or (len(item) > max_item_bytes + 256 and b"phase" not in item):
        assert base64.b64decode(letter["raw_base64"], validate=True) == item
        assert "processor" not in letter
