"""What a proxy in front changes: the address of the dashboard, and of its visitors. Only named proxies are believed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from queue_system.errors import InvalidInputError
from queue_system.validation import check_list, check_text, refused, shown

PAGES: Final = frozenset(
    {"queues", "workers", "operations", "events", "dead-letters", "login", "logout", "assets"}
)  # fmt: skip
"""The first parts of our own addresses."""

_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?\Z|\[[0-9A-Fa-f:.]+\](:\d{1,5})?\Z")
_LONGEST_PATH: Final = 256
_BEGINNINGS: Final = (
    b"x-forwarded", b"x-original-", b"x-envoy-", b"cf-", b"x-amzn-", b"x-amz-cf-", b"x-azure-", b"x-appengine-",
    b"fly-",
)  # fmt: skip
_NAMES: Final = frozenset({
    b"forwarded", b"forwarded-for", b"via", b"x-real-ip", b"x-client-ip", b"client-ip", b"x-cluster-client-ip",
    b"true-client-ip", b"fastly-client-ip", b"x-proxyuser-ip", b"x-remote-ip", b"x-remote-addr", b"x-scheme",
})  # fmt: skip


def is_forwarded(scope: Scope) -> bool:
    """Return whether a request came through a proxy, which makes everybody look like this machine."""
    return any(_is_forwarding(name) for name, _ in scope["headers"])


def check_root_path(path: object) -> str:
    """Return a path under which the dashboard lives, without a slash at its end; "" is the top.

    Raises:
        InvalidInputError: it is not such a path.
    """
    example = "for example /ops/queues"
    found = check_text("root_path", path, "a path", way_out=example).rstrip("/")
    if not _is_path(found):
        raise refused("root_path", "a path", shown(path), example)
    return found


def check_proxies(values: object) -> tuple[Any, ...]:
    """Return the networks of the proxies that are believed.

    Raises:
        InvalidInputError: one is neither an address nor a network.
    """
    networks: list[Any] = []
    expected = "an address or a network"
    example = "for example 10.0.0.0/8"
    for value in check_list("trusted_proxies", values, "a list of addresses"):
        try:
            networks.append(ipaddress.ip_network(check_text("trusted_proxies", value, expected, way_out=example)))
        except InvalidInputError:
            raise
        except ValueError:
            raise refused("trusted_proxies", expected, shown(value), example) from None
    return tuple(networks)


def root_of(scope: Scope) -> str:
    """Return where the dashboard lives, for links and redirects; never the beginning of another site's address."""
    root = str(scope.get("root_path", ""))
    return root if not root or (root[0] == "/" and root[1:2] not in {"/", "\\"}) else ""


class Behind:
    """Puts every request under the root path, and takes visitor and host name from a trusted proxy."""

    def __init__(self, app: ASGIApp, root_path: str, proxies: Sequence[Any]) -> None:
        self._app = app
        self._root = root_path
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            scope = self._moved(self._believed(scope) if self._trusts(scope) else scope, scope)
        await self._app(scope, receive, send)

    def _trusts(self, scope: Scope) -> bool:
        return bool(self._proxies) and scope.get("client") is not None and self._is_proxy(scope["client"][0])

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._proxies)

    def _believed(self, scope: Scope) -> Scope:
        """Return what a trusted proxy says of a request; invalid values count as absent."""
        headers = Headers(scope=scope)
        kept = [(name, value) for name, value in scope["headers"] if not _is_forwarding(name)]
        believed = {**scope, "headers": kept}
        scheme = _last(headers, "x-forwarded-proto").lower()
        if scheme in {"http", "https"}:
            believed["scheme"] = scheme
        host = _last(headers, "x-forwarded-host")
        if _HOST.match(host):
            believed["headers"] = [(b"host", host.encode()), *(pair for pair in kept if pair[0] != b"host")]
        hops = [hop.strip() for each in headers.getlist("x-forwarded-for") for hop in each.split(",")]
        strangers = [hop for hop in hops if not self._is_proxy(hop)]
        if strangers:
            believed["client"] = (strangers[-1][:64], 0)
        return believed

    def _moved(self, scope: Scope, told: Scope) -> Scope:
        """Return the request as one below the root path, whether or not the proxy has taken that away."""
        prefix = _last(Headers(scope=told), "x-forwarded-prefix").rstrip("/") if scope is not told else ""
        root = prefix if prefix and _is_path(prefix) else self._root
        above = scope.get("root_path", "")
        path = scope["path"]
        below = path.removeprefix(above) if path == above or path.startswith(f"{above}/") else path
        is_page = root.split("/")[1:2] and root.split("/")[1] in PAGES  # then only what the proxy has cut can be meant
        if root and not is_page and (below == root or below.startswith(f"{root}/")):
            below = below.removeprefix(root)
        if below.startswith("/") or not below:
            below = below.rstrip("/") or "/"
        return {**scope, "root_path": above + root, "path": above + root + below}


def _last(headers: Headers, name: str) -> str:
    """Return what the proxy next to us says: the last value, behind those that it was sent."""
    values = headers.getlist(name)
    return values[-1].rpartition(",")[2].strip() if values else ""


def _is_path(path: str) -> bool:
    return len(path) <= _LONGEST_PATH and bool(_PATH.match(path)) and not {".", ".."} & set(path.split("/"))


def _is_forwarding(name: bytes) -> bool:
    return name in _NAMES or name.startswith(_BEGINNINGS)
