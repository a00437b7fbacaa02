"""Turns stats and dead letters into HTML: templates, words for numbers and times, sparklines. Never talks to Redis."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from queue_system.broker.failures import redact

MOST_SHOWN: Final = 16 * 1024
"""How many characters of a payload a page shows; the whole of it can be downloaded."""

SPARK_WIDTH: Final = 120
SPARK_HEIGHT: Final = 40

LONGEST_NAME: Final = 256
"""How many characters of a name are shown."""

_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_DASH: Final = "\N{EN DASH}"
_BREAKS = re.compile(r"(?<=[._-])(?=.)")
_ROUGH: Final = 10
_BIG: Final = 100_000
_ASSET_TYPES: Final = {"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}


def visible(value: Any) -> Any:
    """Show what a text hides: control characters, marks of direction, lone surrogates. Line feeds stay."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    if value.isprintable():
        return value
    return "".join(
        [char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in value]
    )


def breakable(text: str) -> Markup:
    """Let a long name go on in the next line after a dot, a dash or an underscore."""
    return Markup("<wbr>").join(_BREAKS.split(visible(text)))


def number(value: float | None) -> str:
    """Write a count with its thousands apart: `12,345`."""
    return _DASH if value is None else f"{value:,.0f}"


def compact(value: float) -> str:
    """Write a count in a few characters: `12,345`, `1.24M`."""
    if value < _BIG:
        return number(value)
    return f"{value / 1e3:.0f}k" if value < 1e6 else f"{value / 1e6:.2f}M"  # noqa: PLR2004


def rate(value: float) -> str:
    """Write a rate: `0.4`, `3.2`, `1,250`."""
    return f"{value:.1f}" if 0 < value < _ROUGH else compact(value)


def duration(seconds: float | None) -> str:
    """Write how long something lasted: `250 ms`, `4.2 s`, `3 min`, `2 h`."""
    if seconds is None:
        return _DASH
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    size, unit = next((pair for pair in _UNITS if seconds >= pair[0]), _UNITS[-1])
    amount = seconds / size
    return f"{amount:.1f} {unit}" if amount < _ROUGH and unit != "min" else f"{amount:.0f} {unit}"


def moment(seconds: float | None) -> str:
    """Write a time in UTC, to the second."""
    if seconds is None:
        return _DASH
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"


def ago(seconds: float | None, now: float) -> str:
    """Write how long ago a time was."""
    return _DASH if seconds is None else f"{duration(max(0.0, now - seconds))} ago"


def short(text: str, most: int = LONGEST_NAME) -> str:
    """Return a text, or its beginning and a mark: what a foreign program wrote may be of any length."""
    return text if len(text) <= most else f"{text[:most]}…"


def safe_reason(text: str) -> str:
    """Return as much of an error as may be shown, its passwords replaced, also one that is cut."""
    return redact(text[: 2 * MOST_SHOWN])


def spark(values: Sequence[float]) -> str:
    """Return the points of a line, drawn from the right, as the `points` of an SVG polyline."""
    top = max([*values, 1e-9])
    left = SPARK_WIDTH - len(values)
    height = SPARK_HEIGHT - 3
    return " ".join(f"{left + i},{SPARK_HEIGHT - 1.5 - height * value / top:.1f}" for i, value in enumerate(values))


def spark_area(values: Sequence[float]) -> str:
    """Return the points of the surface below that line."""
    if not values:
        return ""
    left = SPARK_WIDTH - len(values)
    return f"{left},{SPARK_HEIGHT} {spark(values)} {SPARK_WIDTH - 1},{SPARK_HEIGHT}"


def load_assets() -> dict[str, tuple[bytes, str]]:
    """Read the stylesheet, the script and the icon: name to content and type."""
    folder = resources.files(__package__) / "static"
    return {name: ((folder / name).read_bytes(), kind) for name, kind in _ASSET_TYPES.items()}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """Return the templates, compiled once in a process."""
    environment = Environment(
        loader=PackageLoader("queue_system.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number, "compact": compact, "rate": rate, "duration": duration, "moment": moment, "ago": ago,
        "redact": safe_reason, "short": short, "breakable": breakable, "spark": spark, "spark_area": spark_area,
    }  # fmt: skip
    environment.globals |= {"spark_width": SPARK_WIDTH, "spark_height": SPARK_HEIGHT}
    return environment


class Renderer:
    """The templates and assets. What a template is given is escaped, and shows what it hides."""

    def __init__(self) -> None:
        self.assets = load_assets()
        contents = b"".join([content for content, _ in self.assets.values()])
        self.version = hashlib.sha256(contents).hexdigest()[:12]
        """Changes with the assets, so that browsers may keep them."""

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """Render a template to HTML."""
        return _environment().get_template(template).render(values, version=self.version)
