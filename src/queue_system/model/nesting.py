"""How deep JSON is nested, found out before a decoder recurses into it."""

from __future__ import annotations

from itertools import accumulate
from typing import Final

MAX_DEPTH: Final = 500
"""How many arrays and objects within one another an item may have; every supported Python can decode that many."""
SHALLOW_BYTES: Final = 2 * MAX_DEPTH
"""What has fewer bytes than this is not that deep: a level takes two."""
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed numbers: +1 and -1
_OTHERS: Final = bytes(set(range(256)) - set(b'[{]}"'))


def has_many_parts(encoded: bytes) -> bool:
    """Return whether there are so many arrays and objects that they might be nested too deep."""
    return len(encoded) >= SHALLOW_BYTES and encoded.count(b"[") + encoded.count(b"{") >= MAX_DEPTH


def nesting(encoded: bytes) -> int:
    """Return how many arrays and objects are within one another at the deepest place, brackets in texts left out."""
    unescaped = encoded.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = unescaped.translate(_STEPS, _OTHERS).replace(b'""', b"")  # most texts hold no brackets
    outer = b"".join(marks.split(b'"')[::2]).replace(b"\x01\xff", b"")  # all but the innermost level
    return 1 + max(accumulate(memoryview(outer).cast("b")), default=0)
