"""Records: their layout, and that each error can be told in one."""

from __future__ import annotations

import json

from queue_system.model.operation import Operation
from queue_system.model.record import encode_error, encode_record


def test_a_record_is_a_line_of_fields_and_a_body() -> None:
    operation = Operation(processor="p", nonce="n1", deduplication_key="key")
    record = encode_record(
        b"running", operation, b"high:mail", attempts=2, times_ms=(30, 10, 20), worker=b"host:1", body=b'{"a":1}'
    )
    assert record == b'running\tn1\t30\thigh:mail\tkey\t2\t10\t20\thost:1\n{"a":1}'


def test_absent_fields_of_a_record_are_empty() -> None:
    record = encode_record(b"failed", Operation(processor="p"), b"low:x", attempts=0, times_ms=(1, 0, 0))
    assert record == b"failed\t\t1\tlow:x\t\t0\t0\t0\t\n"


def test_an_error_of_any_text_can_be_encoded() -> None:
    assert json.loads(encode_error("a\nb", "E")) == {"error": "a\nb", "error_type": "E"}
