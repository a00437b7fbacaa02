"""Requests as bytes: what is packed is what a server reads, and the scripts say what they take."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.broker.commands import SCRIPTS
from queue_system.broker.protocol import Command, Script, pack, plain

arguments = st.lists(st.binary(max_size=20) | st.text(st.characters(codec="utf-8"), max_size=20) | st.integers())


def unpack(packed: bytes) -> Iterator[bytes]:
    """Read bulk strings as a server does."""
    while packed:
        assert packed[:1] == b"$"
        length, _, packed = packed[1:].partition(b"\r\n")
        yield packed[: int(length)]
        assert packed[int(length) :][:2] == b"\r\n"
        packed = packed[int(length) + 2 :]


def unpack_request(request: bytes) -> list[bytes]:
    head, _, body = request.partition(b"\r\n")
    parts = list(unpack(body))
    assert head == b"*%d" % len(parts)
    return parts


@given(arguments)
def test_packed_arguments_are_read_back_as_they_were(values: list[bytes | str | int]) -> None:
    as_bytes = [v if isinstance(v, bytes) else str(v).encode() for v in values]
    assert list(unpack(pack(values))) == as_bytes


def test_a_plain_command_is_one_whole_request() -> None:
    command = plain(int, "LRANGE", "key", 0, -1)
    assert command.name == "LRANGE"
    assert unpack_request(command.request()) == [b"LRANGE", b"key", b"0", b"-1"]
    assert command.request(by_text=True) == command.request()
    assert command.parse("7") == 7


def test_a_script_is_called_by_its_hash_or_by_its_text() -> None:
    script = Script("one", "return 'ä'")
    command = Command("one", script, 2, pack(("prefix:", "x")), bytes)
    sha = hashlib.sha1("return 'ä'".encode(), usedforsecurity=False).hexdigest().encode()
    assert unpack_request(command.request()) == [b"EVALSHA", sha, b"1", b"prefix:", b"x"]
    assert unpack_request(command.request(by_text=True)) == [b"EVAL", "return 'ä'".encode(), b"1", b"prefix:", b"x"]


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_says_its_keys_arguments_reply_and_invariant(name: str) -> None:
    source = SCRIPTS[name].source.decode()
    for word in ("-- KEYS", "-- ARGV", "-- Reply", "-- Invariant"):
        assert word in source
