"""Commands as values: the bytes to send and how to read the reply."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from queue_system.broker.library import assemble

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Argument = bytes | str | int


def pack(arguments: Sequence[Argument]) -> bytes:
    """Pack arguments as RESP bulk strings, without the leading count."""
    encoded = [a if isinstance(a, bytes) else a.encode() if isinstance(a, str) else b"%d" % a for a in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in encoded])


@lru_cache(maxsize=64)
def pack_names(names: tuple[str, ...]) -> bytes:
    """Pack what the claims of one worker have in common, however many queues it names."""
    return pack(names)


class Script:
    """One Lua file, called by the hash of its text and, where the server does not know it yet, by the text itself."""

    __slots__ = ("by_hash", "by_text", "name", "sha", "source")

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source.encode()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()
        self.by_hash = pack(("EVALSHA", self.sha, 1))
        self.by_text = pack(("EVAL", self.source, 1))


def load_script(name: str) -> Script:
    """Load `scripts/NAME.lua` with what it uses of the library."""
    return Script(name, assemble(name))


class Command(msgspec.Struct, Generic[T_co], frozen=True, gc=False):
    """One request and the reading of its reply. Sending the same command twice is safe.

    `script` is None for a plain command, whose `body` then is the whole request; else `body` holds `count` packed
    arguments, the prefix being the first.
    """

    name: str
    script: Script | None
    count: int
    body: bytes
    parse: Callable[[Any], T_co]
    blocks: bool = False
    """Whether the server may take its time before it replies."""
    resend_within_s: float = math.inf
    """So long after it was first sent, it may be sent again; later, it may do its work a second time."""

    def request(self, *, by_text: bool = False) -> bytes:
        """Return the bytes to send."""
        script = self.script
        if script is None:
            return self.body
        return b"*%d\r\n%b%b" % (self.count + 3, script.by_text if by_text else script.by_hash, self.body)

    def in_full(self) -> Command[T_co]:
        """Return the same with its script's text, so that no server asks for it and runs what follows first."""
        return (
            self
            if self.script is None
            else msgspec.structs.replace(self, script=None, count=0, body=self.request(by_text=True))
        )


class Group(msgspec.Struct, frozen=True, gc=False):
    """Commands that are run in this order: those before one that fails were run, those after it perhaps.

    A thread sends each while the server works on the one before, a coroutine once that one is answered. In a thread, a
    script that the server does not know is therefore run after those behind it.

    With `together`, all are run on one connection, to which a coroutine sends them at once: when it is lost, all are
    sent again, not only those without an answer.
    """

    commands: Sequence[Command[Any]]
    together: bool = False


def plain(parse: Callable[[Any], T], *arguments: Argument, blocks: bool = False) -> Command[T]:
    """Build a command that needs no script."""
    return Command(str(arguments[0]), None, 0, b"*%d\r\n%b" % (len(arguments), pack(arguments)), parse, blocks)
