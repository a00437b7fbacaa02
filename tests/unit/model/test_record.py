"""Records and dead letters: their layout, and that no item is lost in a letter."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.model.operation import Operation
from queue_system.model.record import encode_error, encode_letter, encode_record


def test_a_record_is_a_line_of_fields_and_a_body() -> None:
    operation = Operation(processor="p", nonce="n1", deduplication_key="key")
    record = encode_record(
        b"running", operation, b"high:mail", attempts=2, times_ms=(30, 10, 20), worker=b"host:1", body=b'{"a":1}'
    )
    assert record == b'running\tn1\t30\thigh:mail\tkey\t2\t10\t20\thost:1\n{"a":1}'


def test_absent_fields_of_a_record_are_empty() -> None:
    record = encode_record(b"failed", Operation(processor="p"), b"low:x", attempts=0, times_ms=(1, 0, 0))
    assert record == b"failed\t\t1\tlow:x\t\t0\t0\t0\t\n"


def test_a_letter_is_the_item_with_the_reason() -> None:
    item = b'{"operation_id":"7","processor":"p","crashes":2,"unknown":1.10}'
    letter = encode_letter(item, b"high:mail", "boom", "ValueError", 12.3456, attempts=3)
    assert b'"unknown":1.10' in letter
    assert json.loads(letter) == {
        "operation_id": "7", "processor": "p", "unknown": 1.1, "attempts": 3,
        "failure_reason": "boom", "error_type": "ValueError", "failed_at": 12.346, "queue": "high:mail",
    }  # fmt: skip


def test_a_letter_of_poison_says_how_often_its_worker_died() -> None:
    letter = encode_letter(
        b'{"operation_id":"7","processor":"p","crashes":3}', b"high:m", "died", "WorkerDied", 1.0, crashes=4
    )
    assert json.loads(letter)["crashes"] == 4


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_what_is_no_item_is_kept_byte_for_byte(item: bytes, queue: bytes) -> None:
    letter = json.loads(encode_letter(item, queue, "no item", "UndecodableItemError", 1.0))
    assert letter["failure_reason"] == "no item"
    if "raw_base64" in letter:
        assert base64.b64decode(letter["raw_base64"]) == item
    else:
        assert isinstance(json.loads(item), dict)


@pytest.mark.parametrize("item", [b"", b"[1]", b"\xff\x00", b'{"a":', b"[" * 100_000])
def test_broken_bytes_are_kept_as_base64(item: bytes) -> None:
    letter = json.loads(encode_letter(item, b"\xff", "reason", "E", 1.0))
    assert base64.b64decode(letter["raw_base64"]) == item
    assert letter["queue"] == "�"


def test_an_error_of_any_text_can_be_encoded() -> None:
    assert json.loads(encode_error("a\nb", "E")) == {"error": "a\nb", "error_type": "E"}
