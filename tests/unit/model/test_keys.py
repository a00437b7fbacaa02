"""Names: which are accepted, which are refused, and how keys are put together."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.model.keys import (
    PRIORITIES,
    Keys,
    check_identifier,
    check_prefix,
    check_priority,
    check_queue_name,
    queue_name_from,
    split_queue,
)
from tests.kit.refusals import refused

CHARSET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
names = st.text(CHARSET, min_size=1, max_size=128)


@pytest.mark.parametrize("priority", ["", "HIGH", "urgent", "high ", "high\n", None, 1, b"high", ["high"], {}])
def test_an_unknown_priority_is_refused_and_named(priority: Any) -> None:
    with refused("priority", "expected one of 'high', 'normal', 'low', got "):
        check_priority(priority)


@given(names)
def test_a_name_of_the_charset_is_accepted_and_can_be_split_from_its_priority(name: str) -> None:
    assert check_queue_name(name) == name
    for priority in PRIORITIES:
        assert split_queue(f"{priority}:{name}".encode()) == (priority, name)


@given(st.text())
def test_any_text_is_accepted_exactly_if_all_its_characters_are_of_the_charset(text: str) -> None:
    if 1 <= len(text) <= 128 and set(text) <= set(CHARSET):
        assert check_queue_name(text) == text
    else:
        with refused("queue_name"):
            check_queue_name(text)


@pytest.mark.parametrize("name", ["", "a" * 129, "a b", "a:b", "é", "a\n", "a\x00", "a/b", "*", "٣", None, 5, b"a"])
def test_a_foreign_name_is_refused_under_the_field_that_the_caller_gives(name: Any) -> None:
    with refused("queues", "A-Z a-z 0-9"):
        check_queue_name(name, "queues")


@given(st.text(min_size=1, max_size=300))
def test_an_identifier_is_refused_exactly_if_a_script_or_a_terminal_could_misread_it(text: str) -> None:
    forbidden = re.compile(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
    if len(text) <= 256 and not forbidden.search(text):
        assert check_identifier(text, "operation_id") == text
        assert re.match(rb'^{"operation_id":"([^"\\]+)"', b'{"operation_id":"%b"' % text.encode())
    else:
        with refused("operation_id"):
            check_identifier(text, "operation_id")


@pytest.mark.parametrize("value", ["", "x" * 257, None, 7, b"id", 'a"b', "a\\b", "a\tb", "a\u2028b", "\ud800"])
def test_an_unusable_identifier_is_refused(value: Any) -> None:
    with refused("deduplication_key"):
        check_identifier(value, "deduplication_key")


@pytest.mark.parametrize(
    "check, value",
    [
        *((check_priority, priority) for priority in PRIORITIES),
        *((check_prefix, prefix) for prefix in ("queue:", "{queue:1}:", "a/b-c.d_e:", "x")),
    ],
)
def test_a_known_priority_and_a_usable_prefix_are_returned(check: Callable[[str], str], value: str) -> None:
    assert check(value) == value


@pytest.mark.parametrize("prefix", ["", "a b", "a*", "a?", "[a]", "a\n", "é:", "x" * 129, None, b"queue:"])
def test_an_unusable_prefix_is_refused_and_named(prefix: Any) -> None:
    with refused("queue_prefix"):
        check_prefix(prefix)


@given(st.text())
def test_every_function_name_gives_a_usable_queue_name(function_name: str) -> None:
    assert check_queue_name(queue_name_from(function_name))


@pytest.mark.parametrize("function_name, name", [("send_email", "send_email"), ("<lambda>", "lambda"), ("", "_")])
def test_a_queue_is_named_after_its_function(function_name: str, name: str) -> None:
    assert queue_name_from(function_name) == name


@given(st.binary())
def test_bytes_that_are_no_queue_split_into_none(text: bytes) -> None:
    parts = split_queue(text)
    assert parts is None or f"{parts[0]}:{parts[1]}".encode() == text


@pytest.mark.parametrize("text", [b"", b"high", b"high:", b"HIGH:a", b"high:a:b", b"high:a\n", b"my:a", b"high:\xff"])
def test_a_foreign_queue_splits_into_none(text: bytes) -> None:
    assert split_queue(text) is None


def test_all_keys_begin_with_the_prefix() -> None:
    keys = Keys("p:")
    assert keys.queue("high", "mail") == "p:high:mail"
    assert keys.operation("7") == "p:operation:7"
    assert keys.inflight("w") == "p:inflight:w"
    assert (keys.wake(), keys.wake("mail")) == ("p:wake", "p:wake:mail")
    assert (keys.registry, keys.delayed, keys.workers) == ("p:registry", "p:delayed", "p:workers")
    assert (keys.failures, keys.system_errors) == ("p:failures", "p:system_errors")
