"""The login form: takes the token, hands out a session. Never writes the token anywhere."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from queue_system.dashboard.access import COOKIE
from queue_system.dashboard.pages import Pages, set_cookie


class Login:
    """The endpoints by which a browser gets and gives back its session."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def form(self, request: Request) -> Response:
        """Show the form; whoever is let in already is sent on."""
        if not self._pages.access.has_login or await self._pages.access.admits(request):
            return RedirectResponse(f"{request.scope.get('root_path', '')}/", 303)
        return self._pages.login(request)

    async def enter(self, request: Request) -> Response:
        """Take the token and begin a session."""
        access = self._pages.access
        form = await self._pages.read_form(request, signed=False)
        if not access.is_token(form.get("token", [""])[0]):
            return self._pages.login(request, problem="That is not the token.", status=403)
        response = RedirectResponse(f"{request.scope.get('root_path', '')}/", 303)
        set_cookie(request, response, access.new_session())
        return response

    async def leave(self, request: Request) -> Response:
        """End the session in this browser."""
        await self._pages.read_form(request)
        root = request.scope.get("root_path", "")
        response = RedirectResponse(f"{root}/login", 303)
        response.delete_cookie(COOKIE, path=root or "/", httponly=True, samesite="strict")
        return response
