"""The protection around every page: the headers of each answer and the checks of each request."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from queue_system.dashboard.access import Access, is_same_origin
from queue_system.dashboard.attempts import TOO_OFTEN, note_failure, retry_after
from queue_system.dashboard.proxy import is_forwarded, root_of
from queue_system.metrics import StructuredLogger
from queue_system.monitoring.guard import refusal

MOST_FORM_BYTES: Final = 256 * 1024

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_READS: Final = ("GET", "HEAD")
_NO_PROXY: Final = (
    "This dashboard answers requests of its own machine only, and this one came through a proxy, behind which every"
    " visitor looks like that. To run it behind one, start it with --token-file and --trusted-proxies, and with"
    " --root-path where it lives below a path."
)


class Shield:
    """Adds the headers, and refuses foreign hosts, foreign origins and forms that are too large. For every path."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted, this is answered 403
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        started = False

        async def send_shielded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(HTTPConnection(scope))
        try:
            await (refusal or self._app)(scope, receive, send_shielded)
        except Exception:
            if not started:
                await PlainTextResponse("This did not work; see the log for the reason.", 500)(
                    scope, receive, send_shielded
                )
            raise

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        if (foreign := refusal(connection.scope)) is not None:
            return foreign
        if self._access.local_only and is_forwarded(connection.scope):
            return PlainTextResponse(_NO_PROXY, 403)
        if not self._access.answers_host(connection):
            return PlainTextResponse("This host name is not allowed here; see allowed_hosts.", 421)
        if connection.scope["method"] in _READS:
            return None
        if not is_same_origin(connection):
            return PlainTextResponse("Only the dashboard's own pages may send this.", 403)
        length = connection.headers.get("content-length", "")
        if not length.isdigit():
            return PlainTextResponse("The length of the form must be given.", 411)
        if len(length) > 9 or int(length) > MOST_FORM_BYTES:  # noqa: PLR2004
            return PlainTextResponse("The form is too large.", 413)
        return None


class Admission:
    """Lets through whom the access rules admit; sends others to the login, if there is one."""

    def __init__(self, app: ASGIApp, access: Access, log: StructuredLogger) -> None:
        self._app = app
        self._access = access
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        connection = HTTPConnection(scope)
        if await self._access.admits(connection):
            await self._app(scope, receive, send)
            return
        if self._access.offers_wrong_bearer(connection):
            wait_s = note_failure(self._access.throttle, self._log, connection)
            if wait_s:
                await PlainTextResponse(TOO_OFTEN, 429, retry_after(wait_s))(scope, receive, send)
                return
        wants_page = scope["method"] in _READS and "text/html" in connection.headers.get("accept", "")
        if self._access.has_login and wants_page:
            await RedirectResponse(f"{root_of(scope)}/login", 303)(scope, receive, send)
        elif self._access.has_login:
            await PlainTextResponse("A token is needed.", 401, {"www-authenticate": "Bearer"})(scope, receive, send)
        else:
            await PlainTextResponse("You may not see this.", 403)(scope, receive, send)
