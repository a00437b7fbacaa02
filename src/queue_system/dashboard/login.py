"""The login form: takes the token, hands out a session."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from queue_system.dashboard.access import COOKIE
from queue_system.dashboard.attempts import TOO_OFTEN, client_of, note_failure, retry_after
from queue_system.dashboard.pages import Pages, set_cookie
from queue_system.dashboard.proxy import root_of
from queue_system.metrics import StructuredLogger


class Login:
    """The endpoints by which a browser gets and ends its session."""

    def __init__(self, pages: Pages, log: StructuredLogger) -> None:
        self._pages = pages
        self._log = log

    async def form(self, request: Request) -> Response:
        """Show the form; a visitor who is signed in already is redirected."""
        if not self._pages.access.has_login or await self._pages.access.admits(request):
            return RedirectResponse(f"{root_of(request.scope)}/", 303)
        return self._pages.login(request)

    async def enter(self, request: Request) -> Response:
        """Take the token and begin a session."""
        access = self._pages.access
        form = await self._pages.read_form(request, signed=False)
        wait_s = access.throttle.wait_s(client_of(request))
        if wait_s:  # the right one as well: else guessing would go on
            response: Response = self._pages.login(request, problem=TOO_OFTEN, status=429)
            response.headers.update(retry_after(wait_s))
            return response
        if not access.is_token(form.get("token", [""])[0]):
            note_failure(access.throttle, self._log, request)
            return self._pages.login(request, problem="That is not the token.", status=403)
        access.throttle.succeeded(client_of(request))
        self._log.info("dashboard began a session", client=client_of(request))
        response = RedirectResponse(f"{root_of(request.scope)}/", 303)
        set_cookie(request, response, access.new_session())
        return response

    async def leave(self, request: Request) -> Response:
        """End the session, in this browser and for those who have a copy of its cookie."""
        await self._pages.read_form(request)
        self._pages.access.end_session(request.cookies.get(COOKIE, ""))
        root = root_of(request.scope)
        response = RedirectResponse(f"{root}/login", 303)
        secure = request.url.scheme == "https"
        response.delete_cookie(COOKIE, path=root or "/", secure=secure, httponly=True, samesite="strict")
        return response
