"""The pages that only read: overview, queues, workers, one operation, and the stream of live stats."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse

from queue_system.broker.failures import redact
from queue_system.client.lookup import OperationRecord
from queue_system.config import QueueConfig
from queue_system.dashboard.access import COOKIE, SESSION_S, Access
from queue_system.dashboard.live import MOST_QUEUES, VIEWS, Live
from queue_system.dashboard.proxy import root_of
from queue_system.dashboard.rendering import MOST_SHOWN, Renderer, safe_reason
from queue_system.dashboard.sampler import Snapshot
from queue_system.errors import AccessDeniedError, CircuitOpenError, InvalidInputError, QueueSystemError, ServerError
from queue_system.manager import QueueManager
from queue_system.model.preview import document, preview
from queue_system.resilience.threads import in_daemon_thread

_LONGEST_SEARCH: Final = 256
_MOST_FIELDS: Final = 2000
_MOST_ASIDES: Final = 4  # threads at once

T = TypeVar("T")


class Pages:
    """The endpoints that read, and what all endpoints need to answer with a page."""

    def __init__(self, config: QueueConfig, access: Access, renderer: Renderer, live: Live) -> None:
        self.manager = QueueManager(config)
        self.access = access
        self._renderer = renderer
        self._live = live
        self._asides = asyncio.Semaphore(_MOST_ASIDES)

    async def overview(self, request: Request) -> Response:
        """Show the fleet at a glance."""
        return await self.show(request, "overview")

    async def queues(self, request: Request) -> Response:
        """Show every queue, or those whose name holds the text that is searched for."""
        name = request.query_params.get("name", "").strip()[:_LONGEST_SEARCH]
        snapshot = await self._live.sampler.current()
        found = (
            [queue for queue in snapshot.stats.fleet.queues if name in queue.name] if snapshot.stats and name else []
        )
        found.sort(key=lambda queue: (-queue.depth, queue.name))
        values = {"name": name, "found": found[:MOST_QUEUES], "more": max(0, len(found) - MOST_QUEUES)}
        return await self.show(request, "queues", values, view="none" if name else "queues")

    async def workers(self, request: Request) -> Response:
        """Show every worker, what it holds and when it was last heard of."""
        return await self.show(request, "workers")

    async def operation(self, request: Request) -> Response:
        """Show what is known of one operation."""
        operation_id = request.query_params.get("id", "").strip()
        record = None
        problem = ""
        if operation_id:
            try:
                record = await self.manager.aget_operation(operation_id)
            except InvalidInputError as error:
                problem = str(error)
            else:
                problem = "" if record else "Nothing is known of it: never enqueued, purged, or ended too long ago."
        values = {"operation_id": operation_id, "record": record, "problem": problem, "result": "", "cut": False}
        if record is not None:
            values["result"], values["cut"] = await self.aside(partial(_result, record))
        return await self.show(request, "operation", values, status=200 if record or not operation_id else 404)

    async def operation_text(self, request: Request) -> Response:
        """Let the whole result of an operation be downloaded."""
        operation_id = request.query_params.get("id", "")
        record = await self.manager.aget_operation(operation_id)
        if record is None:
            raise HTTPException(404)
        return download(await self.aside(partial(_whole_result, record)), "result.txt")

    async def events(self, request: Request) -> Response:
        """Stream the live parts of one page, as server-sent events."""
        view = request.query_params.get("view", "none")
        if view not in VIEWS:
            raise HTTPException(404)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        stream = self._live.events(view, root_of(request.scope))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def asset(self, request: Request) -> Response:
        """Send the stylesheet, the script or the icon; its address changes with its content."""
        found = self._renderer.assets.get(request.path_params["name"])
        if found is None or request.path_params["version"] != self._renderer.version:
            raise HTTPException(404)
        content, kind = found
        return Response(content, media_type=kind, headers={"cache-control": "public, max-age=31536000, immutable"})

    async def aside(self, work: Callable[[], T]) -> T:
        """Do in a thread what takes as long as what it looks at is large: the event loop may be an application's."""
        async with self._asides:
            return await in_daemon_thread(work)

    async def show(
        self,
        request: Request,
        page: str,
        values: Mapping[str, Any] | None = None,
        *,
        view: str | None = None,
        status: int = 200,
    ) -> HTMLResponse:
        """Answer with a page; `view` names its live part, by default the page itself if it has one."""
        view = view or (page if page in VIEWS else "none")
        snapshot = await self._live.sampler.current(inflight=view == "workers")
        return self._page(request, page, values or {}, view, snapshot, status)

    def _page(
        self, request: Request, page: str, values: Mapping[str, Any], view: str, snapshot: Snapshot, status: int
    ) -> HTMLResponse:
        root = root_of(request.scope)
        visitor = secrets.token_hex(16)
        html = self._renderer.render(
            f"{page}.html",
            {
                "root": root,
                "page": page,
                "view": view,
                "live": self._live.fragments(snapshot, view, root),
                "snapshot": snapshot,
                "now": snapshot.stats.fleet.at if snapshot.stats else 0.0,
                "access": self.access,
                "form_token": self.access.form_token(request, visitor),
                **values,
            },
        )
        response = HTMLResponse(html, status)
        if COOKIE not in request.cookies and not self.access.has_bearer(request):
            set_cookie(request, response, visitor)
        return response

    def login(self, request: Request, *, problem: str = "", status: int = 200) -> HTMLResponse:
        """Answer with the login form."""
        values = {"root": root_of(request.scope), "problem": problem}
        return HTMLResponse(self._renderer.render("login.html", values), status)

    async def read_form(self, request: Request, *, signed: bool = True) -> dict[str, list[str]]:
        """Read a form; unless `signed` is False, it must come from a page that we gave to this very browser."""
        try:
            form = parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise HTTPException(400, "The form cannot be read.") from None
        if signed and not self.access.is_form_token(request, form.get("form_token", [""])[0]):
            raise HTTPException(403, "The form is out of date: load the page again.")
        return form

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer with a page when the server cannot or must not do what was asked for, or an argument is wrong."""
        status = 503 if isinstance(error, ServerError | CircuitOpenError) else 400
        if isinstance(error, AccessDeniedError):
            status = 403
        text = str(error) if isinstance(error, QueueSystemError) else type(error).__name__
        return await self.show(request, "error", {"status": status, "problem": text}, status=status)

    async def missing(self, request: Request, error: Exception) -> Response:
        """Answer with a page or a line when there is nothing under an address."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = error.headers if isinstance(error, HTTPException) else None
        if status == 404 and await self.access.admits(request):  # noqa: PLR2004
            return await self.show(
                request, "error", {"status": status, "problem": "There is no such page."}, status=404
            )
        return PlainTextResponse(str(getattr(error, "detail", "refused")), status, headers)


def set_cookie(request: Request, response: Response, value: str) -> None:
    """Hand a browser the value that only it and we know; no script and no other site may use it."""
    path = root_of(request.scope) or "/"
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, value, max_age=SESSION_S, path=path, secure=secure, httponly=True, samesite="strict")


def download(content: bytes, name: str) -> Response:
    """Answer with a text that the browser saves and never interprets."""
    return Response(
        content,
        media_type="text/plain; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _result(record: OperationRecord) -> tuple[str, bool]:
    """Return what is shown of a result or an error, and whether that is not the whole of it."""
    if record.error is not None:
        text = safe_reason(record.error)
        return text[:MOST_SHOWN], len(text) > MOST_SHOWN
    return ("", False) if record.result is None else preview(record.result, MOST_SHOWN)


def _whole_result(record: OperationRecord) -> bytes:
    if record.error is not None:
        return redact(record.error).encode(errors="backslashreplace")
    text = "" if record.result is None else "".join(document(record.result, ensure_ascii=False))
    return text.encode(errors="backslashreplace")
