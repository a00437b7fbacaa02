"""Text from Redis for a terminal: control characters are made visible, so that they do nothing there."""

from __future__ import annotations

import time
from typing import Any, Final

from rich.text import Text

from queue_system.logs import printable
from queue_system.model.preview import preview

MOST_SHOWN: Final = 32 * 1024
"""How many characters of an entity, a result or an error are shown; --json prints the whole."""


_CUT: Final = Text("… this is not all of it; --json prints the whole", "dim")


def plain(value: object, style: str = "") -> Text:
    """Return a value as text that a console shows literally: no markup, no escape sequence, no line break."""
    return Text(printable(str(value)), style)


def pretty_json(value: Any) -> Text:
    """Return the beginning of a JSON value over several lines, as `plain` does each."""
    text, cut = preview(value, MOST_SHOWN)
    return paragraph(text) + Text("\n") + _CUT if cut else paragraph(text)


def paragraph(value: str) -> Text:
    """Return the end of a text of several lines, as `plain` does each."""
    return Text("\n").join([plain(line) for line in value[-MOST_SHOWN:].rstrip("\n").split("\n")])


def marked(value: str) -> Text:
    """Return a text of several lines as `paragraph` does, with a mark before each, so that none passes for our own."""
    return Text("\n").join([Text("| ", "dim") + line for line in paragraph(value).split("\n")])


def beginning(text: str) -> Text:
    """Return the beginning of a text that may be very long, as `plain` does."""
    return plain(text) if len(text) <= MOST_SHOWN else plain(text[:MOST_SHOWN]) + Text("\n") + _CUT


def moment(unix_s: float | None) -> str:
    """Return a time in the local zone, its number where no calendar holds it, or a dash."""
    if unix_s is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
    except (ValueError, OverflowError, OSError):
        return f"{unix_s:g}"


def span(seconds: float) -> str:
    """Return a length of time with one or two units, such as `3 min 20 s`."""
    if seconds < 1:
        return f"{seconds * 1e6:.3g} µs" if seconds < 0.001 else f"{seconds * 1e3:.3g} ms"  # noqa: PLR2004
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.3g} s"
    minutes, s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (s, "s")]
    first = next(i for i, (n, _) in enumerate(parts) if n)
    return " ".join(f"{n} {unit}" for n, unit in parts[first : first + 2] if n)


def count(number: int, noun: str) -> str:
    """Return `1 item`, `2 items`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
