"""The guard in front of the probes: it refuses foreign host names, and everything but plain requests."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

_NAME: Final = re.compile(r"[a-z0-9_.:-]+\Z")
MOST_HEADERS: Final = 100
MOST_HEADER_BYTES: Final = 32 * 1024
_PRIVATE: Final = (".local", ".localhost", ".internal", ".svc", ".cluster.local", ".lan", ".home.arpa", ".test")
"""The ends of names that nobody can register, so that no page elsewhere can have one that leads here."""


def host_name(host: str) -> str:
    """Return the name in a `Host` header, without its port; empty for an invalid one."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""
    return name if _NAME.match(name) else ""


def is_named(name: str, allowed: Sequence[str]) -> bool:
    """Return whether a name is one of those that are allowed; `*.example.org` allows all below it, `*` every one."""
    return any(each in {name, "*"} or (each[:2] == "*." and name.endswith(each[1:])) for each in allowed)


def is_private(name: str) -> bool:
    """Return whether no other site can have a name: it is an address, or known to a private DNS only."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE) or name == socket.gethostname().lower()
    return True


def refusal(scope: Scope) -> Response | None:
    """Return the answer to what no server of ours answers otherwise: a foreign target, or a WebSocket's handshake."""
    if not scope["path"].startswith("/"):
        return PlainTextResponse("The target of the request must be a path.\n", 400)
    headers = scope["headers"]
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > MOST_HEADER_BYTES:
        return PlainTextResponse("The request has too many headers, or too long ones.\n", 431)
    if "websocket" in Headers(scope=scope).get("upgrade", "").lower():
        return PlainTextResponse("There are no WebSockets here.\n", 400)
    return None


class Guard:
    """Lets through what asks for a path under an own name: a private one, or one of `allowed_hosts`."""

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._allowed = tuple(name.lower().rstrip(".") for name in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = refusal(scope) or self._refusal(scope) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        name = Headers(scope=scope).get("host")
        if name is None:  # HTTP/1.0, as some load balancers speak it, and no browser
            return None
        found = host_name(name)
        if found and (is_private(found) or is_named(found, self._allowed)):
            return None
        return PlainTextResponse("This host name is not allowed here; allow it with --allowed-hosts.\n", 421)
