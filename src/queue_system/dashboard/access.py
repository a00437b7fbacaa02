"""Who may see the dashboard and who may change something: hosts, tokens, sessions, origins. Never talks to Redis."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from queue_system.dashboard.throttle import Throttle
from queue_system.validation import check_callable, check_flag, check_list, check_text, refused, type_name

AuthHook: TypeAlias = Callable[[HTTPConnection], bool | Awaitable[bool]]
"""Decides whether a request may be answered; it may be async."""

COOKIE: Final = "queue_system_dashboard"
SESSION_S: Final = 12 * 3600
"""How long a login lasts."""

_SHORTEST_TOKEN: Final = 16
_LOOPBACK_NAME: Final = "localhost"
_BEARER: Final = "bearer "
_MOST_ENDED: Final = 10_000


def is_loopback(host: str) -> bool:
    """Return whether a host name or address leads to this machine only."""
    if host.lower() == _LOOPBACK_NAME:
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback if mapped is None else mapped.is_loopback


class Access:
    """The rules for one dashboard.

    Without a token and without a hook, only this machine is answered: the peer's address and the name in `Host` must be
    loopback ones. With `allowed_hosts`, `Host` must be one of them, or a loopback name.

    Sessions and forms are bound to `secret`, which processes that serve the same dashboard must share. None: it follows
    from the token, or is a random one without.

    Raises InvalidInputError for a token that could be guessed.
    """

    def __init__(
        self,
        token: str | None,
        auth: AuthHook | None,
        *,
        writable: bool,
        allowed_hosts: Sequence[str] | None,
        secret: bytes | None = None,
    ) -> None:
        if auth is not None:
            check_callable("auth", auth, "a function of the request")
        if secret is not None and not isinstance(secret, bytes):
            raise refused("secret", "bytes", type_name(secret))
        self.writable = check_flag("writable", writable)
        self.has_login = token is not None
        self.local_only = token is None and auth is None
        self._auth = auth
        self._hosts = None if allowed_hosts is None else frozenset(host.lower() for host in _host_names(allowed_hosts))
        self._digest = _digest(_check_token(token))
        if secret is None:
            secret = b"" if self.has_login else secrets.token_bytes(32)
        root_key = hmac.digest(self._digest, secret, hashlib.sha256)
        self._session_key = hmac.digest(root_key, b"session", hashlib.sha256)
        self._form_key = hmac.digest(root_key, b"form", hashlib.sha256)
        self._ended: dict[str, float] = {}
        self.throttle = Throttle()

    def answers_host(self, connection: HTTPConnection) -> bool:
        """Return whether the name under which we are asked is one of ours: another site's may lead here as well."""
        host = _host_name(connection.headers.get("host", ""))
        if is_loopback(host):
            return True
        if self.local_only:
            return False
        return self._hosts is None or host in self._hosts

    async def admits(self, connection: HTTPConnection) -> bool:
        """Return whether a request may be answered: it carries the token or a session, or the hook says so."""
        if self.local_only:
            return connection.client is None or is_loopback(connection.client.host)
        if self.has_bearer(connection) or (self.has_login and self.is_session(connection.cookies.get(COOKIE, ""))):
            return True
        if self._auth is None:
            return False
        answer = self._auth(connection)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    def is_token(self, given: str) -> bool:
        """Compare in constant time."""
        return self.has_login and hmac.compare_digest(_digest(given), self._digest)

    def new_session(self) -> str:
        """Return the value of a cookie that stands for the token for `SESSION_S` seconds, and does not hold it."""
        body = f"{int(time.time()) + SESSION_S}.{secrets.token_hex(16)}"
        return f"{body}.{self._mac(body)}"

    def is_session(self, cookie: str) -> bool:
        """Return whether a cookie came from `new_session`, and not too long ago."""
        body, _, mac = cookie.rpartition(".")
        if not hmac.compare_digest(self._mac(body).encode(), mac.encode(errors="replace")):
            return False
        return int(body.partition(".")[0]) > time.time() and cookie not in self._ended

    def end_session(self, cookie: str) -> None:
        """End a session, also for those who have a copy of its cookie."""
        if not self.is_session(cookie):
            return
        now = time.time()
        self._ended = {each: end for each, end in self._ended.items() if end > now}
        self._ended[cookie] = int(cookie.partition(".")[0])
        while len(self._ended) > _MOST_ENDED:
            del self._ended[min(self._ended, key=self._ended.__getitem__)]

    def form_token(self, connection: HTTPConnection, visitor: str) -> str:
        """Return what a form must carry to change something: only we can make it, and for this very browser."""
        who = connection.cookies.get(COOKIE) or visitor
        if self.has_bearer(connection):
            who = connection.headers["authorization"]
        return hmac.new(self._form_key, who.encode(errors="replace"), hashlib.sha256).hexdigest()

    def is_form_token(self, connection: HTTPConnection, given: str) -> bool:
        """Compare in constant time; a browser that has no cookie of ours has no form of ours."""
        if COOKIE not in connection.cookies and not self.has_bearer(connection):
            return False
        return hmac.compare_digest(self.form_token(connection, "").encode(), given.encode(errors="replace"))

    def has_bearer(self, connection: HTTPConnection) -> bool:
        """Return whether a request carries our token, and not an `Authorization` that is a proxy's or the hook's."""
        given = connection.headers.get("authorization", "")
        return given[: len(_BEARER)].lower() == _BEARER and self.is_token(given[len(_BEARER) :].strip())

    def offers_wrong_bearer(self, connection: HTTPConnection) -> bool:
        """Return whether a request offers a token, but not ours; a hook may know it."""
        given = connection.headers.get("authorization", "")
        return self.has_login and given[: len(_BEARER)].lower() == _BEARER and not self.has_bearer(connection)

    def _mac(self, body: str) -> str:
        return hmac.new(self._session_key, body.encode(errors="replace"), hashlib.sha256).hexdigest()


def is_same_origin(connection: HTTPConnection) -> bool:
    """Return whether a browser sent this from a page of ours; what shows no origin at all is not taken for one.

    An origin of `null` is anybody's: `Sec-Fetch-Site` must speak for it, which browsers leave out on plain HTTP but for
    loopback. There the origin alone decides; the referrer policy of our pages lets browsers name it.
    """
    site = connection.headers.get("sec-fetch-site")
    origin = connection.headers.get("origin", "null")
    if site is not None and site != "same-origin":
        return False
    if origin == "null":
        return site is not None
    return urlsplit(origin).netloc.lower() == connection.headers.get("host", "").lower()


def _host_name(host: str) -> str:
    """Return the name in a `Host` header, without its port; empty for an invalid one."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _check_token(token: object) -> str:
    if token is None:
        return ""
    expected = f"at least {_SHORTEST_TOKEN} characters, so that nobody can guess it"
    if len(check_text("token", token, expected)) < _SHORTEST_TOKEN:
        raise refused("token", expected, f"{len(str(token))}")
    return str(token)


def _host_names(names: object) -> list[str]:
    listed = check_list("allowed_hosts", names, "a list of host names")
    return [check_text("allowed_hosts", name, "the name of a host") for name in listed]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
