"""Items: they decode to an operation or to one typed error, and a changed item keeps all else byte for byte."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_system.errors import UndecodableItemError
from queue_system.model.entity import decode_entity, encode_entity
from queue_system.model.operation import (
    Operation,
    change_item,
    check_size,
    decode_item,
    encode_item,
    encode_tail,
)
from queue_system.model.retry import QueueRetryConfig

texts = st.text(st.characters(codec="utf-8"), max_size=10)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(sorted(Operation.__struct_fields__)) | texts
almost_items = st.dictionaries(members, json_values, max_size=6).map(lambda item: {"processor": "p", **item})


@given(almost_items)
@example({"processor": "p", "\ud800": 1})
def test_whatever_decodes_can_be_changed_and_keeps_its_unknown_members(item: dict[str, Any]) -> None:
    text = json.dumps(item, ensure_ascii=True).encode()
    try:
        operation = decode_item(text)
    except UndecodableItemError:
        return
    changed = change_item(text, {"attempts": operation.attempts + 1}, drop=("crashes",))
    decoded = json.loads(changed)
    assert next(iter(decoded)) == "operation_id"
    assert decoded["attempts"] == operation.attempts + 1
    assert "crashes" not in decoded
    for name in item.keys() - {"attempts", "crashes", "operation_id"}:
        assert decoded[name] == item[name]


@pytest.mark.parametrize("name", [b"\xff", b"\xc3", b"a\x80b"])
def test_an_item_with_a_member_name_that_is_no_utf8_is_undecodable_or_can_be_changed(name: bytes) -> None:
    """A worker that accepts what it cannot change could neither retry it nor reclaim it."""
    item = b'{"processor":"p","%b":1}' % name
    try:
        decode_item(item)
    except UndecodableItemError:
        return
    assert name in change_item(item, {"attempts": 1})


@pytest.mark.parametrize(
    "raw",
    [
        b"1.10", b"1e999", b"-0", b"123456789012345678901234567890", b'"\\u0041\\/"', b'"\xff\xfe"',
        b'{"b": 1,  "a":[ 2 ]}', b"[1.0, 1E5]", b"  null",
    ],
)  # fmt: skip
def test_an_unknown_member_keeps_its_very_bytes(raw: bytes) -> None:
    item = b'{"processor":"p","unknown":%b,"operation_id":"7"}' % raw
    assert change_item(item, {"attempts": 2}) == b'{"operation_id":"7","processor":"p","unknown":%b,"attempts":2}' % (
        raw.strip()
    )


def test_changing_replaces_drops_and_adds_members() -> None:
    item = b'{"operation_id":"7","processor":"p","attempts":1,"crashes":3}'
    changed = change_item(item, {"attempts": 2, "phase": "on_success"}, drop=("crashes", "absent"))
    assert changed == b'{"operation_id":"7","processor":"p","attempts":2,"phase":"on_success"}'


def test_an_item_without_an_id_gets_one_in_front() -> None:
    assert change_item(b'{"processor":"p"}', {"operation_id": "t"}) == b'{"operation_id":"t","processor":"p"}'
    assert change_item(b'{"processor":"p"}', {}) == b'{"operation_id":"","processor":"p"}'


@given(json_values, texts)
def test_an_item_that_was_put_together_decodes_to_its_operation(entity: Any, processor: str) -> None:
    tail = encode_tail(Operation(processor=processor, processor_module="m", timestamp=1.5, timeout=2.0))
    item = encode_item("id-1", encode_entity(entity), tail)
    assert item.startswith(b'{"operation_id":"id-1","entity":')
    operation = decode_item(item)
    assert (operation.operation_id, operation.processor, operation.processor_module) == ("id-1", processor, "m")
    assert (operation.entity, operation.timestamp, operation.timeout) == (entity, 1.5, 2.0)
    assert decode_entity(item)["entity"] == entity


@pytest.mark.parametrize("item", [b'{"processor":"p"}', b'{"processor":"p","future":{"a":[1]}}'])
def test_absent_members_take_their_defaults_and_unknown_ones_are_no_obstacle(item: bytes) -> None:
    operation = decode_item(item)
    assert operation == Operation(processor="p")
    assert operation.retry_config == QueueRetryConfig()


@pytest.mark.parametrize(
    "item",
    [
        b'{"operation_id":"7"}',
        b'{"processor":null}',
        b'{"processor":"p","operation_id":7}',
        b'{"processor":"p","attempts":"1"}',
        b'{"processor":"p","attempts":1.5}',
        b'{"processor":"p","delays":[null]}',
        b'{"processor":"p","timestamp":1e400}',
        b'{"processor":"p","entity":NaN}',
        b'{"processor":"p"} trailing',
        b"\xef\xbb\xbf{}",
        rb'{"processor":"p","operation_id":"a\"b"}',
        rb'{"processor":"p","operation_id":"a\nb"}',
        b'{"processor":"p","operation_id":"-%b"}' % (b"x" * 256),
        rb'{"processor":"p","deduplication_key":"a\tb"}',
        rb'{"processor":"p","nonce":"a\tb"}',
        b'{"processor":"p","attempts":9223372036854775809}',
        b'{"processor":"p","crashes":-9223372036854775809}',
        b'{"processor":"p","attempts":%b}' % (b"9" * 400),
    ],
)
def test_an_item_with_a_wrong_member_is_undecodable(item: bytes) -> None:
    with pytest.raises(UndecodableItemError):
        decode_item(item)


@pytest.mark.parametrize("size", [1, 999, 1000, 1000 + 256])
def test_an_item_that_began_within_the_limit_passes_with_the_counts_that_were_added(size: int) -> None:
    check_size(b"x" * size, 1000)


@pytest.mark.parametrize("size", [1000 + 257, 70_000, 10_000_000])
def test_a_larger_item_is_undecodable_and_its_size_told(size: int) -> None:
    with pytest.raises(UndecodableItemError, match=f"{size} bytes, more than max_item_bytes = 1000"):
        check_size(b"x" * size, 1000)


def test_the_item_of_a_callback_may_hold_a_result_and_an_error_as_well() -> None:
    callback = b'{"processor":"p","phase":"on_success","result":"%b"}' % (b"r" * 1800)
    check_size(callback, 1000)
    check_size(callback + b" " * 60_000, 1000)
    with pytest.raises(UndecodableItemError, match="more than max_item_bytes"):
        check_size(callback + b" " * 70_000, 1000)


ABSURD = [
    ("crashes", b"-1"), ("crashes", b"-9000000000000000000"), ("crashes", b"1000000001"),
    ("attempts", b"-1"), ("attempts", b"-9000000000000000000"), ("attempts", b"9223372036854775807"),
    ("max_attempts", b"0"), ("max_attempts", b"-5"), ("max_attempts", b"10001"),
    ("delays", b"[]"), ("delays", b"[-1]"), ("delays", b"[0,1e300]"), ("delays", b"[%b0]" % (b"0," * 10_000)),
    ("timeout", b"0"), ("timeout", b"-1"), ("timeout", b"1e300"),
    ("retry_timeout", b"0"), ("retry_timeout", b"-0.1"), ("retry_timeout", b"1e10"),
    ("result_ttl", b"-1"), ("result_ttl", b"1e300"),
    ("first_attempt_time", b"-1"), ("first_attempt_time", b"1e308"),
    ("timestamp", b"-1"), ("timestamp", b"100000000000"), ("due", b"-9e18"), ("due", b"1e11"),
]  # fmt: skip


@pytest.mark.parametrize("name, value", ABSURD)
def test_a_number_out_of_its_range_makes_an_item_undecodable_and_is_named(name: str, value: bytes) -> None:
    with pytest.raises(UndecodableItemError, match=name):
        decode_item(b'{"processor":"p","%b":%b}' % (name.encode(), value))


@pytest.mark.parametrize(
    "members",
    [
        b'"crashes":0,"attempts":0,"max_attempts":1,"delays":[0],"result_ttl":0,"timestamp":0,"due":0',
        b'"crashes":1000000000,"attempts":1000000000,"max_attempts":10000,"delays":[1000000000],"timeout":1000000000',
        b'"retry_timeout":1000000000,"result_ttl":1000000000,"timestamp":99999999999,"first_attempt_time":1.5',
        b'"delays":null,"timeout":null,"retry_timeout":null,"result_ttl":null,"first_attempt_time":null,"due":null',
    ],
)
def test_the_ends_of_every_range_belong_to_it(members: bytes) -> None:
    """They are those that an enqueue accepts."""
    operation = decode_item(b'{"processor":"p",%b}' % members)
    assert isinstance(operation.retry_config, QueueRetryConfig)


@given(st.binary(max_size=100))
def test_changing_what_is_no_object_raises_a_value_error(item: bytes) -> None:
    try:
        change_item(item, {})
    except (ValueError, msgspec.MsgspecError):
        return
    assert item.lstrip().startswith(b"{")
