"""Puts a script together with what it uses of `scripts/lib`. Pure; the server sees the outcome only.

A part of the library is ordinary Lua. To create a function costs the server as much as a tenth of a command, at each
call of a script, so a script gets what it uses and no more: paragraphs whose names it does not use are left out, and a
function of one line, or a constant in capitals, is written in the place where it is used. A block whose first line is
`-- Rarely`, and which ends with an `end` in the first column, is not reached in the usual case: what only it uses of
the library is put inside it, and costs nothing elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from queue_system.model.states import render_states, render_verbs

_RENDERED: Final[Mapping[str, Callable[[], str]]] = {"states": render_states, "verbs": render_verbs}
"""Parts of the library that are written from tables of Python."""
_DEFINED = re.compile(r"^local (?:function )?([\w, ]+?)\s*(?:=|\(|$)", re.MULTILINE)
_SHORT = re.compile(r"local function (\w+)\(([\w, ]*)\) (return )?(.+) end(?: *--.*)?")
_CONSTANT = re.compile(r"local ([A-Z_]+) = (\d+|'[^']*')(?: *--.*)?")
_RARE = re.compile(r"^ *-- Rarely.*?^end$", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]\w*")
_NOT_CODE = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|--[^\n]*")
_CLOSED = re.compile(r"[\w.]*\((.*)\)", re.DOTALL)
_PLAIN = re.compile(r"[\w.]+(?:\[[\w. +]+\])?|'[^']*'")


def assemble(name: str) -> str:
    """Return `scripts/NAME.lua` behind what it uses of the library, each part once and behind what it uses itself."""
    folder = resources.files(__package__) / "scripts"
    source = (folder / f"{name}.lua").read_text(encoding="utf-8")
    library = _Library(folder / "lib")
    library.include(_uses(source))
    own = library.expand(source)
    block = _RARE.search(own)
    if block is None:
        return "".join([*library.needed_by(own), own])
    before = own[: block.start()]
    after = own[block.end() :]
    usual = library.needed_by(before + after, only_named=True)
    inside = [paragraph for paragraph in library.needed_by(own) if paragraph not in usual]
    return "".join([*usual, before, *inside, block[0], after])


@dataclass(slots=True)
class _Library:
    folder: Traversable
    paragraphs: list[str] = field(default_factory=list)
    short: dict[str, tuple[list[str], str]] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def include(self, names: Iterable[str], inside: tuple[str, ...] = ()) -> None:
        """Take in parts of the library, and first what they use; raise ValueError if one uses itself."""
        for name in names:
            if name in inside:
                raise ValueError(f"lib/{name}.lua uses itself: {' -> '.join((*inside, name))}")
            if name in self._seen:
                continue
            render = _RENDERED.get(name)
            text = render() if render else (self.folder / f"{name}.lua").read_text(encoding="utf-8")
            self.include(_uses(text), (*inside, name))
            self._seen.add(name)
            for paragraph in text.split("\n\n"):
                self._take(paragraph)

    def _take(self, paragraph: str) -> None:
        code = "\n".join(line for line in paragraph.splitlines() if not line.startswith("--"))
        if (constant := _CONSTANT.fullmatch(code)) is not None:
            self.constants[constant[1]] = constant[2]
        elif (short := _SHORT.fullmatch(code)) is not None and (short[3] or _is_closed(short[4])):
            self.short[short[1]] = _WORD.findall(short[2]), self.expand(short[4])
        elif code:
            self.paragraphs.append(self.expand(code) + "\n")

    def expand(self, code: str) -> str:
        """Write constants and short functions where they are used."""
        for word in reversed(list(_WORD.finditer(_blank(code)))):
            if word[0] in self.constants:
                code = code[: word.start()] + self.constants[word[0]] + code[word.end() :]
        while (found := self._next_call(code)) is not None:
            start, name = found
            end, arguments = _arguments(code, start + len(name))
            code = code[:start] + self._written_out(name, arguments) + code[end:]
        return code

    def _next_call(self, code: str) -> tuple[int, str] | None:
        bare = _blank(code)
        calls = (m for m in _WORD.finditer(bare) if m[0] in self.short and bare[m.start() - 1 : m.start()] != ".")
        last = max(calls, key=lambda match: match.start(), default=None)  # so what stands in arguments comes first
        return None if last is None else (last.start(), last[0])

    def _written_out(self, name: str, arguments: list[str]) -> str:
        parameters, body = self.short[name]
        values = dict(zip(parameters, arguments, strict=True))
        bare = _blank(body)
        for parameter, value in values.items():
            if len(re.findall(rf"\b{parameter}\b", bare)) > 1 and not _PLAIN.fullmatch(value):
                raise ValueError(f"{name}({', '.join(arguments)}): {value} would be evaluated more than once")
        pieces = []
        end = 0
        for word in _WORD.finditer(bare):
            if word[0] in values:
                pieces += [body[end : word.start()], _closed(values[word[0]])]
                end = word.end()
        return _closed("".join([*pieces, body[end:]]))

    def needed_by(self, code: str, *, only_named: bool = False) -> list[str]:
        """Return the paragraphs that define what some code uses, in their order, and those that define nothing."""
        used = _names(code)
        kept = []
        for paragraph in reversed(self.paragraphs):
            defined = {name for names in _DEFINED.findall(paragraph) for name in _WORD.findall(names)}
            if defined & used or not (defined or only_named):
                kept.append(paragraph)
                used |= _names(paragraph)
        return kept[::-1]


def _uses(source: str) -> list[str]:
    return [name for line in source.splitlines() if line.startswith("-- Uses") for name in line.split()[2:]]


def _blank(code: str) -> str:
    """Return code of the same length, its strings and comments blank."""
    return _NOT_CODE.sub(lambda found: " " * len(found[0]), code)


def _names(code: str) -> set[str]:
    return set(_WORD.findall(_blank(code)))


def _is_closed(code: str) -> bool:
    """Return whether an expression is a single call, which keeps all its values, or stands in parentheses."""
    closed = _CLOSED.fullmatch(code)
    return closed is not None and min(_depths(closed[1]), default=0) >= 0


def _closed(code: str) -> str:
    """Return an expression so that it may stand in another one."""
    return code if _PLAIN.fullmatch(code) or _is_closed(code) else f"({code})"


def _depths(code: str) -> Iterator[int]:
    depth = 0
    for character in _blank(code):
        depth += (character in "({[") - (character in ")}]")
        yield depth


def _arguments(code: str, start: int) -> tuple[int, list[str]]:
    """Return where a call ends whose parenthesis opens at `start`, and its arguments."""
    bare = _blank(code)
    if bare[start : start + 1] != "(":
        raise ValueError(f"a function of one line can only be called: {code[start - 20 : start + 20]!r}")
    arguments = []
    begin = start + 1
    for place, depth in enumerate(_depths(code[start:]), start):
        if (depth == 1 and bare[place] == ",") or depth == 0:
            if argument := code[begin:place].strip():
                arguments.append(argument)
            begin = place + 1
        if depth == 0:
            return begin, arguments
    raise ValueError(f"a call has no end: {code[start : start + 40]!r}")
