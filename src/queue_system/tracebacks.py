"""Where an error came from, as bounded text: the last frames, causes, groups, notes. No locals, no passwords of URLs.

Frames of this package and of the import system are left out where there are others, and so is what of the standard
library stands before the first line of the application. What an error says begins no line: it stands behind the name of
its type or is indented, and is printable. Never raises, whatever an error's own methods do.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import linecache
import os
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

from queue_system.errors import QueueSystemError, cut_text
from queue_system.logs import printable, without_passwords

__all__ = ["MOST_BYTES", "Trace", "describe_error", "line_of", "raisable", "remote", "tail", "trace", "where"]

MOST_BYTES: Final = 8192
"""How long a traceback is at most; of a longer one the end is kept."""

_FIRST_FRAMES: Final = 4
_LAST_FRAMES: Final = 16
_LONGEST_LINE: Final = 240
_LONGEST_TEXT: Final = 1024
_MOST_NOTES: Final = 5
_MOST_LINKS: Final = 5
_MOST_IN_GROUP: Final = 5
_DEEPEST_GROUP: Final = 3
_CUT: Final = "... (cut)\n"
_TYPE_NAME: Final = type.__dict__["__name__"].__get__
_OWN_FOLDER: Final = f"{Path(__file__).parent}/"
_MACHINERY: Final = (_OWN_FOLDER, "<frozen importlib", importlib.__file__)
_STANDARD_LIBRARY: Final = (f"{Path(os.__file__).parent}/", "<frozen ")
_INSTALLED: Final = ("/site-packages/", "/dist-packages/")
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """An error and where it came from, as text without passwords; "" where the text of the error says everything."""

    text: str
    error: BaseException | None
    """What was raised; its traceback begins in the application's own code. None: it was raised in another process."""
    kind: str
    message: str
    has_secret: bool = False
    """Whether a password was taken out of the text, which the error itself still holds."""

    @property
    def loggable(self) -> BaseException:
        """What a log handler may have: the error itself, or one of that name without a password."""
        if self.error is not None and not self.has_secret:
            return self.error
        return _stand_in(self.kind if self.kind.isidentifier() else "Exception")(self.message)


class _RemoteError(Exception):
    """Stands for what was raised in another process; its subclasses have the name of that."""

    origin: Trace


def raisable(found: Trace) -> Exception:
    """Return an error of the name and text of one that was raised in another process; `trace` of it is `found`."""
    error = _stand_in(found.kind if found.kind.isidentifier() else "Exception", _RemoteError)(found.message)
    error.origin = found  # type: ignore[attr-defined]  # it is a _RemoteError
    return error


def trace(error: BaseException) -> Trace:
    """Describe an error and where it came from, and take the frames of this package off its beginning."""
    if issubclass(type(error), _RemoteError):
        return error.origin  # type: ignore[attr-defined,no-any-return]  # it is one; an instance may say anything
    with contextlib.suppress(BaseException):
        error.__traceback__ = _skip_own(error.__traceback__)
    writer = _Writer()
    try:
        message = writer.clean(_text_of(error))
        text = writer.chain(error)
    except BaseException:  # noqa: BLE001 - whatever its attributes raise; a log handler would meet the same
        message = f"{_name(error)} (its text cannot be read)"
        text = ""
        writer.has_secret = True
    return Trace(text, error, cut_text(_name(error)), message, writer.has_secret)


def remote(kind: str, message: str, text: str) -> Trace:
    """Return the trace of an error that was raised in another process, of which only texts came."""
    return Trace(tail(text, MOST_BYTES), None, kind, message)


def describe_error(error: BaseException) -> str:
    """Return an error's text, cut, whatever its `__str__` does; its type's name when it has none."""
    return cut_text(_text_of(error))


def _text_of(error: BaseException) -> str:
    try:
        return "".join([str(error)]) or _name(error)  # joined, it is a plain str
    except BaseException:  # noqa: BLE001 - a hostile __str__
        return f"{_name(error)} (its text cannot be read)"


def _name(error: BaseException) -> str:
    """Return the name of an error's type, whatever its metaclass does."""
    return str(_TYPE_NAME(type(error)))


def where(thread: int, caller: CodeType) -> TracebackType | None:
    """Return where a thread is in what `caller` has called, as the traceback that an error raised there would have."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - the only way to see another thread
    found = None
    while frame is not None and frame.f_code is not caller:
        found = TracebackType(found, frame, frame.f_lasti, frame.f_lineno or 1)
        frame = frame.f_back
    return found


def line_of(error: BaseException) -> str:
    """Return the application's line that an error came through last, as `file:line`; "" if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(str(error.filename))}:{error.lineno}"
    lines = [
        f"{_short(link.tb_frame.f_code.co_filename)}:{link.tb_lineno}"
        for link in _links(error.__traceback__)
        if _applications(link.tb_frame) and not any(part in link.tb_frame.f_code.co_filename for part in _INSTALLED)
    ]
    return lines[-1] if lines else ""


def tail(text: str, most: int) -> str:
    """Return the last lines of a text that `most` bytes of UTF-8 hold; lone surrogates, which UTF-8 lacks, escaped."""
    if len(text) <= most and text.isascii():
        return text
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) > most:
        kept = encoded[len(encoded) - max(most - len(_CUT), 0) :]
        encoded = _CUT.encode() + kept[kept.find(b"\n") + 1 :]
    return encoded.decode(errors="replace")


class _Writer:
    """Writes one error and what belongs to it."""

    def __init__(self) -> None:
        self.has_secret = False
        self._has_place = False

    def clean(self, text: str) -> str:
        """Take passwords out, and note if there were any."""
        cleaned = without_passwords(text)
        self.has_secret = self.has_secret or cleaned != text
        return cleaned

    def chain(self, error: BaseException) -> str:
        """Return the text of an error after those of what led to it; "" if no place in any code is known."""
        links = [error]
        joints = []
        while (earlier := _earlier(links[-1])) is not None and all(earlier[0] is not link for link in links):
            if len(links) == _MOST_LINKS:
                self.has_secret = True  # nobody looked at the rest, so nobody may see it
                break
            links.append(earlier[0])
            joints.append(earlier[1])
        parts = [self._single(error, MOST_BYTES, 0)]
        left = MOST_BYTES
        for link, joint in zip(links[1:], joints, strict=False):
            left -= len(parts[-1].encode(errors="backslashreplace"))
            if left <= _LONGEST_LINE:
                self.has_secret = True
                break
            parts.append(self._single(link, left, 0) + joint)
        return tail("".join(reversed(parts)), MOST_BYTES) if self._has_place else ""

    def _single(self, error: BaseException, most: int, depth: int) -> str:
        frames = "".join(self._frames(error))
        header = "Traceback (most recent call last):\n" if frames else ""
        own = tail(f"{header}{frames}{self._message(error)}", most)
        if not isinstance(error, BaseExceptionGroup):
            return own
        inner = error.exceptions
        left = most - len(own)
        shown = inner[:_MOST_IN_GROUP] if depth < _DEEPEST_GROUP and left > _LONGEST_LINE else ()
        self.has_secret = self.has_secret or len(shown) < len(inner)
        for child in shown:
            own += _indented(self._single(child, left // len(shown) // 2, depth + 1))
        return own + (f"  | and {len(inner) - len(shown)} more\n" if len(shown) < len(inner) else "")

    def _message(self, error: BaseException) -> str:
        lines = [*self._place_of_syntax(error)] if isinstance(error, SyntaxError) else []
        kind = printable(_kind(error))
        text = self.clean(_text_of(error))
        named = kind if text == _name(error) else f"{kind}: {_told(text, _LONGEST_TEXT)}"
        lines.append(f"{named}\n")
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list | tuple):
            lines += [f"    {_told(self.clean(str(note)), _LONGEST_TEXT)}\n" for note in notes[:_MOST_NOTES]]
            self.has_secret = self.has_secret or len(notes) > _MOST_NOTES
        return "".join(lines)

    def _place_of_syntax(self, error: SyntaxError) -> Iterator[str]:
        self._has_place = True
        yield f'  File "{printable(str(error.filename))}", line {error.lineno}\n'
        if error.text:
            yield f"    {_told(self.clean(str(error.text).strip()), _LONGEST_LINE)}\n"

    def _frames(self, error: BaseException) -> Iterator[str]:
        first: list[_Place] = []
        last: deque[_Place] = deque(maxlen=_LAST_FRAMES)
        left_out = 0
        for place in _places(
            error.__traceback__, own_too=not isinstance(error, QueueSystemError | asyncio.CancelledError | SyntaxError)
        ):
            if len(first) < _FIRST_FRAMES:
                first.append(place)
            else:
                left_out += len(last) == _LAST_FRAMES
                last.append(place)
        for place in first:
            yield self._frame(place)
        if left_out:
            yield f"  ... {left_out} frames are left out\n"
        for place in last:
            yield self._frame(place)

    def _frame(self, place: _Place) -> str:
        self._has_place = True
        code = place.frame.f_code
        number = place.line
        line = linecache.getline(code.co_filename, number, place.frame.f_globals).strip()
        source = f"    {_told(self.clean(line), _LONGEST_LINE)}\n" if line else ""
        again = f"  [Previous line repeated {place.repeats} more times]\n" if place.repeats else ""
        place_in_code = f'File "{printable(code.co_filename)}", line {number}, in {printable(code.co_name)}'
        return f"  {place_in_code}\n{source}{again}"


@dataclass(slots=True)
class _Place:
    """A line of code that was being executed, and how often it called itself."""

    frame: FrameType
    line: int
    repeats: int = 0


def _places(tb: TracebackType | None, *, own_too: bool) -> Iterator[_Place]:
    """Yield the places of a traceback, equal ones in a row as one; those of this package if there are no others."""
    place: _Place | None = None
    wanted = _any if own_too and not any(_theirs(link.tb_frame) for link in _links(tb)) else _theirs
    for link in _links(_skip_own(tb)):
        frame = link.tb_frame
        if not wanted(frame):
            continue
        if place is not None and frame.f_code is place.frame.f_code and link.tb_lineno == place.line:
            place.repeats += 1
            continue
        if place is not None:
            yield place
        place = _Place(frame, link.tb_lineno)
    if place is not None:
        yield place


def _links(tb: TracebackType | None) -> Iterator[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def _any(_frame: FrameType) -> bool:
    return True


def _theirs(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith(_MACHINERY)


def _applications(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return _theirs(frame) and not (file.startswith(_STANDARD_LIBRARY) and not any(part in file for part in _INSTALLED))


def _skip_own(tb: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the application's first frame on, or that of what it calls, or itself."""
    for wanted in (_applications, _theirs):
        if (found := next((link for link in _links(tb) if wanted(link.tb_frame)), None)) is not None:
            return found
    return tb


def _short(file: str) -> str:
    """Return a file's path, from the current folder on if it lies there."""
    return printable(file.removeprefix(f"{Path.cwd()}/"))


def _earlier(error: BaseException) -> tuple[BaseException, str] | None:
    if isinstance(error.__cause__, BaseException):
        return error.__cause__, _CAUSE
    if isinstance(error.__context__, BaseException) and not error.__suppress_context__:
        return error.__context__, _CONTEXT
    return None


def _kind(error: BaseException) -> str:
    kind = type(error)
    module: Any = kind.__module__
    plain = not isinstance(module, str) or module in {"builtins", "__main__"}
    return kind.__qualname__ if plain else f"{module}.{kind.__qualname__}"


def _indented(text: str) -> str:
    return "".join([f"  | {line}\n" for line in text.splitlines()]) + "  +----\n"


def _told(text: str, most: int) -> str:
    """Return a text as printable lines, all but the first indented further than a frame; a long one is cut."""
    told = "\n    ".join([printable(line) for line in text[:most].split("\n")])
    return told if len(told) <= most >= len(text) else f"{told[:most]}... ({len(text)} characters)"


@lru_cache(maxsize=256)
def _stand_in(kind: str, base: type[Exception] = Exception) -> type[Exception]:
    return type(kind, (base,), {"__module__": "builtins"})
