"""Writes JSON values for people, piece by piece, so that the cost is that of what is shown."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

INDENTED_LEVELS: Final = 16
"""Down to where a document is indented: below, its indentation would be most of it."""
SHOWN_LEVELS: Final = 32
"""How many arrays and objects within one another a preview opens."""

_CLOSED: Final = {dict: "{…}", list: "[…]"}
_TOO_LONG: Final = '"…a number with too many digits…"'
_Encode = Callable[[Any], str]


def preview(value: Any, most_chars: int) -> tuple[str, bool]:
    """Return the beginning of a value, written over several lines, and whether that is not the whole of it.

    Of what lies deeper than `SHOWN_LEVELS`, only that there is something.
    """

    def encode(part: Any) -> str:
        return _encode(part[: most_chars + 1] if isinstance(part, str) else part, ensure_ascii=False)

    written: list[str] = []
    size = 0
    cut = False
    for piece in _pieces(value, encode, SHOWN_LEVELS, SHOWN_LEVELS):
        written.append(piece)
        size += len(piece)
        cut = cut or piece in _CLOSED.values()
        if size > most_chars:
            return "".join(written)[:most_chars], True
    return "".join(written), cut


def document(value: Any, *, ensure_ascii: bool = True) -> Iterator[str]:
    """Yield a value as one JSON document, piece by piece: indented at the top, compact from `INDENTED_LEVELS` on."""
    return _pieces(value, functools.partial(_encode, ensure_ascii=ensure_ascii), INDENTED_LEVELS, None)


def _encode(part: Any, *, ensure_ascii: bool = True) -> str:
    try:
        return json.dumps(part, ensure_ascii=ensure_ascii, default=str)
    except ValueError:  # Python writes no number that long
        return _TOO_LONG


def _pieces(value: Any, encode: _Encode, indented: int, shown: int | None) -> Iterator[str]:
    """Write a value. Arrays and objects below the level `shown` stay closed."""
    open_parts: list[tuple[Iterator[tuple[str, Any]], str]] = [(iter((("", value),)), "")]
    while open_parts:
        members, closing = open_parts[-1]
        for lead, part in members:
            yield lead
            level = len(open_parts)
            if not isinstance(part, dict | list) or not part:
                yield encode(part)
            elif shown is not None and level > shown:
                yield _CLOSED[dict if isinstance(part, dict) else list]
            else:
                opening, end = "{}" if isinstance(part, dict) else "[]"
                yield opening
                outer = "\n" + "  " * (level - 1) if level <= indented else ""
                open_parts.append((_members(part, encode, level, indented), outer + end))
                break
        else:
            open_parts.pop()
            yield closing


def _members(part: Any, encode: _Encode, level: int, indented: int) -> Iterator[tuple[str, Any]]:
    """Yield each member of an array or object, and what stands before it."""
    between = "\n" + "  " * level if level <= indented else ""
    lead = between
    following = f",{between or ' '}"
    if isinstance(part, dict):
        for name, member in part.items():
            yield f"{lead}{encode(name)}: ", member
            lead = following
    else:
        for member in part:
            yield lead, member
            lead = following
