"""The pages of dead letters: filter, look, retry, drop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from queue_system.client.dead_letters import DeadLetter, DeadLetterPage, Selection, list_flow
from queue_system.client.flow import run_flow
from queue_system.dashboard.pages import Pages, download
from queue_system.dashboard.proxy import root_of
from queue_system.dashboard.rendering import MOST_SHOWN
from queue_system.model.preview import preview

SOURCES: Final = ("failures", "system_errors")
PAGE: Final = 25

_MINUTE = 60.0
_HOUR = 3600.0
_DAY = 86400.0
AGES: Final[Mapping[str, tuple[str, float | None, float | None]]] = {
    "": ("any age", None, None),
    "15min": ("last 15 minutes", None, 15 * _MINUTE),
    "1h": ("last hour", None, _HOUR),
    "1d": ("last day", None, _DAY),
    "older-1h": ("older than an hour", _HOUR, None),
    "older-1d": ("older than a day", _DAY, None),
    "older-7d": ("older than a week", 7 * _DAY, None),
}
_ACTIONS: Final = {"retry": "retried", "drop": "dropped"}
_LONGEST_FILTER: Final = 256


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; empty texts mean all."""

    source: str = "failures"
    queue: str = ""
    processor: str = ""
    error: str = ""
    age: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Filter:
        """Read a filter from a query or a form; what is unknown is refused as not found."""
        found = cls(
            source=given.get("source") or "failures",
            queue=_text(given, "queue"),
            processor=_text(given, "processor"),
            error=_text(given, "error"),
            age=given.get("age", ""),
        )
        if found.source not in SOURCES or found.age not in AGES:
            raise HTTPException(404)
        return found

    @property
    def members(self) -> dict[str, str]:
        """What a link or a form must carry to mean the same dead letters."""
        every = {name: getattr(self, name) for name in ("source", "queue", "processor", "error", "age")}
        return {name: value for name, value in every.items() if value}

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the manager's methods."""
        _, min_age, max_age = AGES[self.age]
        return {
            "source": self.source, "queue": self.queue or None, "processor": self.processor or None,
            "error": self.error or None, "min_age": min_age, "max_age": max_age,
        }  # fmt: skip

    def query(self, **more: str) -> str:
        """Return the query of a link to these dead letters."""
        return urlencode({**self.members, **more})


class DeadLetters:
    """The endpoints for dead letters."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._manager = pages.manager

    async def page(self, request: Request) -> Response:
        """List dead letters, the newest first, page by page."""
        wanted = Filter.of(request.query_params)
        cursor = request.query_params.get("cursor", "")
        found = await self._pages.aside(partial(self._read, wanted, cursor))
        values = {
            "filter": wanted,
            "ages": AGES,
            "dead_letters": found.letters,
            "next_cursor": found.cursor,
            "cursor": cursor,
            "note": _note(request.query_params),
        }
        return await self._pages.show(request, "dead_letters", values)

    async def show(self, request: Request) -> Response:
        """Show one dead letter with its payload."""
        dead_letter, payload, cut = await self._pages.aside(partial(self._find_shown, request))
        values = {
            "dead_letter": dead_letter,
            "payload": payload,
            "cut": cut,
            "size": len(dead_letter.raw),
            "start": request.query_params.get("from", ""),
        }
        return await self._pages.show(request, "dead_letter", values)

    async def text(self, request: Request) -> Response:
        """Let the whole dead letter be downloaded, byte for byte."""
        dead_letter = await self._pages.aside(partial(self._find, request))
        return download(dead_letter.raw, "dead-letter.txt")

    async def sure(self, request: Request) -> Response:
        """Ask before dead letters are dropped, or more of them changed than a page shows. Changes nothing itself."""
        self._check_writable()
        form = await self._pages.read_form(request) if request.method == "POST" else {}
        given = {name: values[0] for name, values in form.items()} or request.query_params
        action = given.get("action", "")
        wanted = Filter.of(given)
        ids = form.get("letter_id", [])
        if action not in _ACTIONS:
            raise HTTPException(404)
        if not ids and given.get("scope") != "matching":
            return self._back(request, wanted, note="none")
        return await self._pages.show(request, "sure", {"filter": wanted, "ages": AGES, "action": action, "ids": ids})

    async def change(self, request: Request) -> Response:
        """Retry or drop dead letters: those that are named, or all that match."""
        form = await self._pages.read_form(request)
        self._check_writable()
        single = {name: values[0] for name, values in form.items()}
        action = single.get("action", "")
        wanted = Filter.of(single)
        ids = form.get("letter_id", [])
        if action not in _ACTIONS:
            raise HTTPException(404)
        if ids:
            count = await self._apply(action, {"source": wanted.source, "letter_ids": ids})
        elif single.get("scope") == "matching":
            count = await self._apply(action, wanted.arguments)
        else:
            return self._back(request, wanted, note="none")
        return self._back(request, wanted, note=_ACTIONS[action], count=str(count))

    async def _apply(self, action: str, arguments: Mapping[str, Any]) -> int:
        if action == "retry":
            return await self._manager.aretry_dead_letters(**arguments)
        return await self._manager.adrop_dead_letters(**arguments)

    def _read(self, wanted: Filter, cursor: str) -> DeadLetterPage:
        """Read a page of dead letters. Blocks: each dead letter, however large, is decoded."""
        chosen = wanted.arguments
        source = chosen.pop("source")
        config = self._manager.config
        return run_flow(list_flow(config, source, Selection(**chosen), PAGE, cursor), config.run)

    def _find_shown(self, request: Request) -> tuple[DeadLetter, str, bool]:
        """Find a dead letter, and write what is shown of its payload. Blocks."""
        dead_letter = self._find(request)
        if dead_letter.item is not None:
            return dead_letter, *preview(dead_letter.item, MOST_SHOWN)
        text = dead_letter.raw[: 4 * MOST_SHOWN].decode(errors="backslashreplace")
        return dead_letter, text[:MOST_SHOWN], len(text) > MOST_SHOWN

    def _find(self, request: Request) -> DeadLetter:
        """Find the dead letter that an address names. Blocks."""
        source = request.path_params["source"]
        letter_id = request.path_params["letter_id"]
        if source not in SOURCES:
            raise HTTPException(404)
        config = self._manager.config
        start = request.query_params.get("from", "")
        work = list_flow(config, source, Selection(letter_ids=(letter_id,)), 1, start)
        found = run_flow(work, config.run)
        if not found.letters:
            raise HTTPException(404)
        return found.letters[0]

    def _check_writable(self) -> None:
        if not self._pages.access.writable:
            raise HTTPException(403, "This dashboard only reads.")

    def _back(self, request: Request, wanted: Filter, **more: str) -> Response:
        root = root_of(request.scope)
        return RedirectResponse(f"{root}/dead-letters?{wanted.query(**more)}", 303)


def _text(given: Mapping[str, str], name: str) -> str:
    return given.get(name, "").strip()[:_LONGEST_FILTER]


def _note(given: Mapping[str, str]) -> str:
    """Return what a change came to; only our own words and a number are taken from the address."""
    note = given.get("note", "")
    count = given.get("count", "")
    if note == "none":
        return "No dead letter was selected."
    if note not in _ACTIONS.values() or not count.isdecimal() or len(count) > 9:  # noqa: PLR2004
        return ""
    return f"{int(count):,} {'dead letter' if int(count) == 1 else 'dead letters'} {note}."
