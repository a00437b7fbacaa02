"""Hostile names: of processors, modules, operations and queues. Refused in one short line, and never imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_system.errors import InvalidInputError, UnresolvableNameError
from queue_system.imports.libraries import library_paths
from queue_system.imports.policy import Application
from queue_system.model.entity import encode_entity
from queue_system.model.keys import (
    PRIORITIES,
    Keys,
    check_identifier,
    check_prefix,
    check_priority,
    check_queue_name,
    split_queue,
)
from queue_system.model.operation import Operation, decode_item, encode_item, encode_tail
from queue_system.model.registry import Reference, Registry, parse_reference

CHECKS: list[Callable[[Any], object]] = [
    check_priority,
    check_queue_name,
    check_prefix,
    lambda value: check_identifier(value, "operation_id"),
    lambda value: parse_reference(value, "processor") if isinstance(value, str) else None,
    lambda value: Registry().reference(value, "processor"),
]
words = st.sampled_from([
    "os", "sys", "builtins", "subprocess", "importlib", "queue_system", "__main__", "system", "eval", "__import__",
    "__builtins__", "__globals__", "msgspec", "\uff4f\uff53", "OS", "o\u0301s", "os\x00", "..", "", "-", "a" * 5000,
    "<lambda>", "f.<locals>.g", "\u202eso", "\ud800", "\r\n", "\x1b[31m", "/etc/passwd", "*", "{x}", "%s", "{0}",
    "\u0661", "é",
])  # fmt: skip
texts = st.text(max_size=20) | words | st.lists(words | st.text(max_size=4), max_size=5).map(".".join)
things = texts | st.none() | st.integers() | st.floats() | st.binary(max_size=20) | st.lists(texts, max_size=3)


@pytest.mark.parametrize("number", range(len(CHECKS)))
@given(thing=things)
@example(thing="x" * 100_000)
@example(thing=10**5000)
def test_whatever_is_given_for_a_name_is_taken_or_refused_in_one_short_line(number: int, thing: Any) -> None:
    try:
        CHECKS[number](thing)
    except InvalidInputError as error:
        message, field = str(error), error.field
    else:
        return
    assert message.startswith(f"{field}: ")
    assert message.isprintable()
    assert len(message) < 400


@given(texts)
def test_a_reference_that_is_accepted_stands_for_itself(text: str) -> None:
    try:
        reference = parse_reference(text, "processor")
    except InvalidInputError:
        return
    assert str(reference) == text.replace(":", ".")
    assert parse_reference(str(reference), "processor") == reference


@pytest.mark.parametrize("allowed", [None, (), ("no_such_module_anywhere",)])
@given(name=texts, module=texts | st.none())
@example(name="system", module="os")
@example(name="path.join", module="os")
@example(name="f", module="no_such_module_anywhere" + ".a" * 2000)
@example(name="f", module="a" * 100_000)
def test_a_name_of_an_item_leads_to_nothing_that_was_not_registered(
    allowed: tuple[str, ...] | None, name: str, module: str | None
) -> None:
    """Nor is anything imported on the way."""
    library_paths()  # sysconfig imports its data when it is first asked
    before = set(sys.modules)
    with pytest.raises(UnresolvableNameError):
        Registry(Application(allowed)).resolve(name, module)
    assert set(sys.modules) == before


@given(texts, texts)
def test_what_is_registered_under_any_name_is_found_under_it_alone(name: str, module: str) -> None:
    registry = Registry(Application(()))
    reference = registry.register(len, name or "n", module or "m")
    assert reference == Reference(name or "n", module or "m")
    assert registry.resolve(reference.name, reference.module) is len
    with pytest.raises(UnresolvableNameError):
        registry.resolve(f"{reference.name}x", reference.module)


@given(texts)
def test_an_identifier_that_is_accepted_goes_through_an_item_unchanged(text: str) -> None:
    """`encode_item` puts it between quotes as it stands."""
    try:
        check_identifier(text, "operation_id")
    except InvalidInputError:
        return
    tail = encode_tail(Operation(processor="p", deduplication_key=text, nonce=text))
    operation = decode_item(encode_item(text, encode_entity({"operation_id": "other"}), tail))
    assert (operation.operation_id, operation.deduplication_key, operation.nonce) == (text, text, text)


@given(texts, st.sampled_from(PRIORITIES), texts)
def test_a_queue_name_that_is_accepted_makes_a_key_that_is_no_other_queue_s(
    name: str, priority: str, prefix: str
) -> None:
    try:
        keys = Keys(check_prefix(prefix))
        check_queue_name(name)
    except InvalidInputError:
        return
    key = keys.queue(priority, name)
    assert split_queue(key.removeprefix(prefix).encode()) == (priority, name)
    assert key not in {keys.registry, keys.delayed, keys.workers, keys.failures, keys.system_errors, keys.wake()}
    assert not set(key) & set("*?[]\\\r\n\x00 ")
