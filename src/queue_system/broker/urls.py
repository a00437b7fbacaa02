"""Reads the URL of a server, or of the sentinels that name one. Pure; no error shows what may be a password."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.connection import parse_url
from redis.sentinel import Sentinel

from queue_system.broker.clients import loss, no_retry
from queue_system.broker.embedded import data_dir_from_url
from queue_system.broker.failures import redact
from queue_system.errors import InvalidInputError
from queue_system.validation import check_text, refused, shown

SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys", "embedded")
"""Those that lead to one server."""
_BASES: Final = ("redis", "rediss", "valkey", "valkeys")
SENTINEL_SCHEMES: Final = tuple(f"{base}+sentinel" for base in _BASES)
CLUSTER_SCHEMES: Final = tuple(f"{base}+cluster" for base in _BASES)
_OPTIONS = frozenset({
    "db", "username", "password", "client_name", "socket_timeout", "socket_connect_timeout", "socket_keepalive",
    "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname",
})  # fmt: skip
_SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password", "sentinel_ssl"})
_CLUSTER_OPTIONS: Final = frozenset({"shards"})
_OF_SENTINELS_TOO: Final = ("socket_keepalive",)
_YES: Final = frozenset({"true", "yes", "1"})
_NO: Final = frozenset({"false", "no", "0"})
_SAFE: Final[Mapping[str, tuple[str, ...]]] = {
    "ssl_cert_reqs": ("required", "optional"),
    "ssl_check_hostname": ("true", "yes", "1"),
}
_ENCRYPTED: Final = ("rediss", "valkeys")
SECONDS: Final = ("socket_timeout", "socket_connect_timeout")
"""The settings that are times."""
_SECONDS_VALUE = re.compile(r"(?=.*[1-9])\d{1,9}(\.\d{1,9})?\Z", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # urlsplit passes over some of them
_SPACE = re.compile(r"\s")
_DATABASE = re.compile(r"/?\d{0,9}/?\Z", re.ASCII)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[\w.-]{1,253}))(?::(?P<port>\d{1,5}))?\Z")
_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]{1,200}\Z")
_SENTINEL_PORT: Final = 26379
_NODE_PORT: Final = 6379
_LAST_PORT: Final = 65535
_EXAMPLE: Final = "for example redis://localhost:6379/0"
_MANY_EXAMPLE: Final = "for example redis+sentinel://host1:26379,host2:26379/mymaster/0"
_ESCAPES: Final = "in a user name or password, write '/' as %2F, '?' as %3F, '#' as %23, '@' as %40 and ' ' as %20"
_NO_CLUSTER: Final = (
    "clusters are not supported by this release yet; until they are, use queue_prefix='{queue}:' and the redis:// URL"
    " of the node that serves its slot"
)
_NO_LIST: Final = "lists of servers are not supported by this release yet; until they are, give one URL"

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Servers:
    """Which servers a URL means, and how each is reached. What is printed of it holds no password."""

    url: str = field(repr=False)
    """For one server, in the client's own schemes; else as it was given."""
    sentinels: tuple[Host, ...] = ()
    """Who names the server; nobody, if the URL does so itself."""
    service: str = ""
    """The name under which the sentinels know the server."""
    node: str = field(default="", repr=False)
    """A URL with all that a connection to the server needs but its host."""
    sentinel: str = field(default="", repr=False)
    """A URL with all that a connection to a sentinel needs but its host."""

    @property
    def is_embedded(self) -> bool:
        """Whether the server is to be started where there is none."""
        return self.url.startswith("embedded:")

    def client(self, timeout: float) -> redis.Redis:
        """Build a redis-py client, which connects on first use and has this limit, in s, where the URL names none."""
        if not self.sentinels:
            return make_client(self.url, timeout)
        limits = dict.fromkeys(SECONDS, timeout)
        asks: Any = Sentinel(self.sentinels, sentinel_kwargs={**limits, **_settings(self.sentinel), **no_retry()})
        client: redis.Redis = asks.master_for(self.service, **{**limits, **_settings(self.node), **no_retry()})
        return client


def make_client(url: str, timeout: float) -> redis.Redis:
    """Build a redis-py client for a checked URL of one server; it connects on first use."""
    return redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, **no_retry())


def read_url(url: object) -> Servers:
    """Return which servers a URL means.

    Raises:
        InvalidInputError: a foreign scheme or option, or an unusable value. Nothing that may be a password is shown.
    """
    if isinstance(url, list | tuple):
        raise refused("redis_url", "one URL", f"a list of {len(url):,}", _NO_LIST)
    url = check_text("redis_url", url, "a URL", way_out=_EXAMPLE)
    if len(urls := url.split()) > 1 and all("://" in each for each in urls):
        raise refused("redis_url", "one URL", f"{len(urls):,} of them", _NO_LIST)
    scheme, _, rest = url.partition("://")
    if scheme in SENTINEL_SCHEMES:
        return _read_sentinels(url, scheme.removesuffix("+sentinel"), rest)
    if scheme in CLUSTER_SCHEMES:
        _read_cluster(scheme.removesuffix("+cluster"), rest)
        raise refused("redis_url", "one server, or the sentinels that name one", "a cluster", _NO_CLUSTER)
    return Servers(check_url(url))


def check_url(url: object) -> str:
    """Return the URL of one server in redis-py's own schemes.

    Raises:
        InvalidInputError: a foreign scheme or option, or an unusable value. Nothing that may be a password is shown.
    """
    url = check_text("redis_url", url, "a URL", way_out=_EXAMPLE)
    parts = _split(url)
    if parts is None:
        raise refused("redis_url", "a URL", "text that cannot be read as one", f"{_EXAMPLE}; {_ESCAPES}")
    if parts.scheme not in SCHEMES:
        expected = f"a URL whose scheme is one of {', '.join((*SCHEMES, *SENTINEL_SCHEMES))}"
        raise refused("redis_url", expected, f"the scheme {shown(parts.scheme)}", _EXAMPLE)
    if parts.scheme == "embedded":
        data_dir_from_url(url)
        return url
    if parts.fragment or _CONTROL.search(url) or _SPACE.search(parts.netloc + parts.query):
        raise refused("redis_url", "a URL", "one with a character that must be escaped", _ESCAPES)
    _check_options(parts)
    if parts.scheme != "unix" and not _DATABASE.match(parts.path):
        raise refused("redis_url", "a database number after the host, such as /0", "other text there", _ESCAPES)
    url = url.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1)
    if problem := _refusal(url):
        raise InvalidInputError("redis_url", f"redis-py cannot use it: {problem}; {_EXAMPLE}")
    return url


def _read_sentinels(url: str, base: str, rest: str) -> Servers:
    login, hosts, path, options = _parts(rest, _SENTINEL_PORT, _SENTINEL_OPTIONS)
    service, slash, database = path.removesuffix("/").partition("/")
    service = unquote(service)
    if not _SERVICE.match(service):
        expected = "the name that the sentinels give the servers, of letters, digits, '.', '_' and '-'"
        raise refused("redis_url", f"behind the hosts {expected}", "other text" if service else "none", _MANY_EXAMPLE)
    if slash and (not database.isascii() or not database.isdigit() or "db" in options):
        got = "a second one in db" if database.isdigit() else "other text"
        raise refused("redis_url", "one database number behind the service", got, _MANY_EXAMPLE)
    encrypted = base in _ENCRYPTED
    by_tls = _flag("sentinel_ssl", options.get("sentinel_ssl"), default=encrypted)
    ssl = {name: value for name, value in options.items() if name.startswith("ssl_")}
    others = {name: value for name, value in options.items() if name in _OPTIONS - ssl.keys()}
    node = {**others, **(ssl if encrypted or not by_tls else {})}
    scheme = "rediss" if encrypted else "redis"
    node_url = check_url(f"{scheme}://{login}host/{database}?{urlencode(node)}")
    names = {name: f"sentinel_{name}" for name in ("username", "password")}
    asked = {name: options[option] for name, option in names.items() if option in options}
    asked |= {name: others[name] for name in _OF_SENTINELS_TOO if name in others} | (ssl if by_tls else {})
    sentinel_url = check_url(f"{'rediss' if by_tls else 'redis'}://host?{urlencode(asked)}")
    return Servers(url, hosts, service, node_url, sentinel_url)


def _read_cluster(base: str, rest: str) -> None:
    """Check all that a URL of a cluster says."""
    login, _, path, options = _parts(rest, _NODE_PORT, _CLUSTER_OPTIONS)
    if path.strip("/0") or options.get("db", "0").strip("0"):
        raise refused("redis_url", "no database but 0, which is the only one of a cluster", "another one")
    shards = options.pop("shards", "1")
    if not (shards.isascii() and shards.isdigit() and int(shards[:9])):
        raise refused("redis_url", "shards to be a whole number of at least 1", "another value", "for example shards=6")
    check_url(f"{'rediss' if base in _ENCRYPTED else 'redis'}://{login}host?{urlencode(options)}")


def _parts(rest: str, port: int, more: Iterable[str]) -> tuple[str, tuple[Host, ...], str, dict[str, str]]:
    """Split what follows the scheme: the log-in with its @, the hosts, the path, the options."""
    body, _, query = rest.partition("?")
    authority, _, path = body.partition("/")
    login, at, named = authority.rpartition("@")
    if "#" in rest or "@" in login + path or _CONTROL.search(rest) or _SPACE.search(rest):
        raise refused("redis_url", "a URL", "one with a character that must be escaped", _ESCAPES)
    hosts = tuple(dict.fromkeys(_host(text, port) for text in named.split(",")))
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    hidden = "@" in query or any("password" in name for name in options)  # a foreign name may be a part of a password
    allowed = _OPTIONS.union(more)
    for name, _ in pairs:
        if name not in allowed:
            raise _foreign(allowed, name, hidden=hidden)
    if len(options) < len(pairs):
        raise refused("redis_url", "each option once", "one of them again")
    return f"{login}{at}", hosts, path, options


def _host(text: str, port: int) -> Host:
    """Read one of several hosts."""
    found = _HOST.match(text)
    given = int(found["port"] or port) if found is not None else 0
    if found is None or not 0 < given <= _LAST_PORT:
        expected = "hosts separated by commas, each a name, an IPv4 address or an IPv6 address in brackets, and a port"
        got = "other text in place of one" if text else "nothing in place of one"
        raise refused("redis_url", expected, got, f"{_MANY_EXAMPLE}; {_ESCAPES}")
    return found["v6"] or found["name"], given


def _flag(option: str, value: str | None, *, default: bool) -> bool:
    if value is None:
        return default
    if value.lower() not in _YES | _NO:
        raise refused("redis_url", f"{option} to be true or false", "another value", f"for example {option}=true")
    return value.lower() in _YES


def _settings(url: str) -> dict[str, Any]:
    """Return what redis-py makes of a URL, but for its host."""
    settings: dict[str, Any] = dict(parse_url(url))
    if settings.pop("connection_class", None) is not None:
        settings["ssl"] = True
    for name in ("host", "port"):
        settings.pop(name, None)
    return settings


def _split(url: str) -> SplitResult | None:
    """Split a URL; an error of the parser would quote what it could not read, such as a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _check_options(parts: SplitResult) -> None:
    options = parse_qsl(parts.query, keep_blank_values=True)
    hidden = "@" in parts.query or "password" in dict(options)  # then a foreign name may be a part of a password
    for name, value in options:
        if name not in _OPTIONS:
            raise _foreign(_OPTIONS, name, hidden=hidden)
        if name.startswith("ssl_") and parts.scheme not in _ENCRYPTED:
            got = f"{name} with another scheme"
            raise refused("redis_url", f"{name} only with one of the schemes {', '.join(_ENCRYPTED)}", got)
        safe = _SAFE.get(name)
        if safe is not None and value.lower() not in safe:
            expected = f"{name} to be one of {', '.join(safe)}, so that certificates are checked"
            raise refused("redis_url", expected, "another value")
        if name in SECONDS and not _SECONDS_VALUE.match(value):
            raise refused("redis_url", f"{name} to be a number of seconds above 0", "another value", "for example 2.5")


def _foreign(allowed: Collection[str], name: str, *, hidden: bool) -> InvalidInputError:
    got = "another option" if hidden else f"the option {shown(name)}"
    return refused("redis_url", f"no options but {', '.join(sorted(allowed))}", got)


def _refusal(url: str) -> str:
    """Return why redis-py cannot use a URL; empty when it can."""
    try:
        pool = redis.ConnectionPool.from_url(url)
    except (ValueError, TypeError) as error:
        return redact(str(error))
    return loss(pool)
