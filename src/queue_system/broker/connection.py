"""Where the server is and how to connect to it, for both transports. Opens nothing by itself.

A user's client is only a source of settings: the transports open connections of their own, redis-py's retries off.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from queue_system.broker.connecting import (
    TcpConnection,
    TlsConnection,
    UnixConnection,
    look_up,
    numeric_addresses,
    reach,
    remaining_s,
    within,
)
from queue_system.broker.embedded import data_dir_from_url
from queue_system.broker.failures import redact
from queue_system.broker.loop_end import cancelled_before_close
from queue_system.broker.protocol import plain
from queue_system.broker.replies import parse_info
from queue_system.broker.wire import AioWire, SyncWire
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import InvalidInputError, UnsupportedServerError
from queue_system.resilience.threads import in_daemon_thread
from queue_system.validation import check_text, refused, shown

OLDEST_SERVER = (6, 2)
SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys", "embedded")
_OPTIONS = frozenset({
    "db", "username", "password", "client_name", "socket_timeout", "socket_connect_timeout", "socket_keepalive",
    "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname",
})  # fmt: skip
_SAFE: Final[Mapping[str, tuple[str, ...]]] = {
    "ssl_cert_reqs": ("required", "optional"),
    "ssl_check_hostname": ("true", "yes", "1"),
}
_ENCRYPTED: Final = ("rediss", "valkeys")
_SECONDS: Final = ("socket_timeout", "socket_connect_timeout")
_SECONDS_VALUE = re.compile(r"(?=.*[1-9])\d{1,9}(\.\d{1,9})?\Z", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # urlsplit passes over some of them
_SPACE = re.compile(r"\s")
_DATABASE = re.compile(r"/?\d{0,9}/?\Z", re.ASCII)
_EXAMPLE: Final = "for example redis://localhost:6379/0"
_ESCAPES: Final = "in a user name or password, write '/' as %2F, '?' as %3F, '#' as %23, '@' as %40 and ' ' as %20"
_DROPPED = frozenset({
    "retry", "retry_on_timeout", "retry_on_error", "decode_responses", "encoding", "encoding_errors", "parser_class",
    "health_check_interval", "protocol", "connection_pool", "event_dispatcher", "command_packer", "redis_connect_func",
    "himport_registry", "oss_cluster_maint_notifications_handler", "legacy_responses",
})  # fmt: skip


_KINDS: Final[Mapping[type, type]] = {
    Connection: TcpConnection,
    SentinelManagedConnection: TcpConnection,
    SSLConnection: TlsConnection,
    SentinelManagedSSLConnection: TlsConnection,
    UnixDomainSocketConnection: UnixConnection,
}
"""The connections of redis-py that we open ourselves, blocking and on an event loop, from a client's settings."""
_AIO_KINDS: Final[Mapping[type, type[Any]]] = {
    TcpConnection: aioredis.Connection,
    TlsConnection: aioredis.SSLConnection,
    UnixConnection: aioredis.UnixDomainSocketConnection,
}


def check_url(url: object) -> str:
    """Return a server's URL in redis-py's own schemes.

    Raises:
        InvalidInputError: a foreign scheme or option, or an unusable value. Nothing that may be a password is shown.
    """
    url = check_text("redis_url", url, "a URL", way_out=_EXAMPLE)
    parts = _split(url)
    if parts is None:
        raise refused("redis_url", "a URL", "text that cannot be read as one", f"{_EXAMPLE}; {_ESCAPES}")
    if parts.scheme not in SCHEMES:
        expected = f"a URL whose scheme is one of {', '.join(SCHEMES)}"
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
            got = "another option" if hidden else f"the option {shown(name)}"
            raise refused("redis_url", f"no options but {', '.join(sorted(_OPTIONS))}", got)
        if name.startswith("ssl_") and parts.scheme not in _ENCRYPTED:
            got = f"{name} with another scheme"
            raise refused("redis_url", f"{name} only with one of the schemes {', '.join(_ENCRYPTED)}", got)
        safe = _SAFE.get(name)
        if safe is not None and value.lower() not in safe:
            expected = f"{name} to be one of {', '.join(safe)}, so that certificates are checked"
            raise refused("redis_url", expected, "another value")
        if name in _SECONDS and not _SECONDS_VALUE.match(value):
            raise refused("redis_url", f"{name} to be a number of seconds above 0", "another value", "for example 2.5")


def _refusal(url: str) -> str:
    """Return why redis-py cannot use a URL; empty when it can."""
    try:
        pool = redis.ConnectionPool.from_url(url)
    except (ValueError, TypeError) as error:
        return redact(str(error))
    return _loss(pool)


def check_client(client: object) -> redis.Redis:
    """Return a client whose server and settings our own connections can have, too: blocking and on an event loop.

    Raises:
        InvalidInputError: it is not a client, or connects in a special way that our connections would not follow.
    """
    pool = getattr(client, "connection_pool", None)
    kind = type(client)
    if not isinstance(client, redis.Redis) or not isinstance(pool, redis.ConnectionPool):
        expected = "a redis.Redis"
        got = f"{kind.__module__}.{kind.__qualname__}"
    elif loss := _loss(pool):
        expected = "a client that connects as redis-py does, since coroutines and workers open connections of their own"
        got = f"one that cannot be repeated: {loss}"
    else:
        return client
    way_out = "give redis_url instead; for tests, redis_url='embedded:///path' starts a server of their own"
    raise refused("redis_client", expected, got, way_out)


def _loss(pool: redis.ConnectionPool) -> str:
    """Return what of a client's way to connect our own connections cannot have; empty when there is nothing."""
    kind = pool.connection_class
    settings = pool.connection_kwargs
    if kind not in _KINDS:
        return f"its connections are of the class {kind.__module__}.{kind.__qualname__}"
    if settings.get("redis_connect_func") is not None:
        return "it has a redis_connect_func"
    blocking = _KINDS[kind]
    unknown = (_parameters(blocking) - _parameters(_AIO_KINDS[blocking]) - _DROPPED).intersection(settings)
    lost = sorted(name for name in unknown if settings[name])
    return f"redis-py {redis.__version__} has no {', '.join(lost)} in coroutines" if lost else ""


@dataclass(frozen=True, slots=True)
class SyncConnection:
    """A blocking connection that redis-py opened, and the wire on its socket."""

    opened: AbstractConnection
    wire: SyncWire

    def close(self) -> None:
        """Drop the connection."""
        self.opened.disconnect()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and the settings to connect to it."""

    pool: redis.ConnectionPool = field(repr=False)  # some releases of redis-py show the password in it
    timeout: float
    prepare: Callable[[], object] | None = None
    """Called before each connection: brings an embedded server back."""
    longest_s: float = math.inf
    """No silence, nor an attempt to connect, is borne for longer, whatever the client's own settings say."""

    @property
    def address(self) -> str:
        """The server's address for messages, without credentials."""
        kwargs = self.pool.connection_kwargs
        if path := kwargs.get("path"):
            return f"unix://{path}"
        if service := getattr(self.pool, "service_name", None):
            return f"sentinel service {redact(str(service))}"
        return f"redis://{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}/{kwargs.get('db', 0) or 0}"

    @property
    def is_local(self) -> bool:
        """Whether the server is reached by a Unix socket."""
        return bool(self.pool.connection_kwargs.get("path"))

    @property
    def is_authenticated(self) -> bool:
        """Whether the settings hold credentials: a password, a provider of one, or a certificate of the client's."""
        credentials = ("password", "credential_provider", "ssl_certfile")
        return any(self.pool.connection_kwargs.get(name) for name in credentials)

    @property
    def read_limit_s(self) -> float:
        """After how long a silence, in s, each transport's connection gives up; what blocks must end before."""
        own = self.pool.connection_kwargs.get("socket_timeout")
        return min(own or self.timeout, self.timeout, self.longest_s)

    def connect(self) -> SyncConnection:
        """Open a blocking connection; raises what redis-py raises, an error of the user's code as ConnectionError.

        Look-ups, TCP, TLS and log-in together have one limit, and so has all that comes before `settle_in`.
        """
        if self.prepare is not None:
            self.prepare()
        started = SYSTEM_CLOCK.monotonic()
        kind = _KINDS[self.pool.connection_class]
        settings = self._settings(kind)
        limit_s = settings["socket_connect_timeout"]
        read_limit_s = settings["socket_timeout"]
        try:
            connection: Any = self._unconnected(kind, settings, started + limit_s)
        except (redis.RedisError, OSError):
            raise
        except Exception as error:
            raise _of_the_application(error) from error
        try:
            connection.connect()
        except Exception:
            connection.disconnect()  # redis-py does so after errors of its own only
            raise
        hurried = connection._sock  # noqa: SLF001 - redis-py gives no other way
        connection._sock = hurried.let_go()  # noqa: SLF001
        until = started + max(limit_s, read_limit_s)
        return SyncConnection(connection, SyncWire(hurried.plain, read_limit_s, until))

    def _unconnected(self, kind: type, settings: dict[str, Any], deadline: float) -> Any:
        """Ask sentinels, a provider of credentials and a resolver, where there is something to ask of them."""
        pool: Any = self.pool
        if hasattr(pool, "service_name"):
            settings["host"], settings["port"] = within(remaining_s(deadline), pool.get_master_address)
        if (provider := settings.pop("credential_provider", None)) is not None:
            *user, settings["password"] = within(remaining_s(deadline), provider.get_credentials)
            settings["username"] = user[0] if user else None
        connection: Any = kind(**settings, retry=Retry(NoBackoff(), 0))
        connection.deadline = deadline
        if kind is not UnixConnection:
            host = connection.host
            port = connection.port
            connection.addresses = numeric_addresses(host, port) or within(remaining_s(deadline), look_up, host, port)
        return connection

    async def connect_aio(self, *, whole: bool = False) -> AioWire:
        """Open an asyncio connection with the same settings; raises what `connect` raises. `whole` is the wire's."""
        connection = await in_daemon_thread(self._aio_connection) if self._blocks else self._aio_connection()
        try:
            with cancelled_before_close():
                await _resolve(connection)
                await connection.connect()
        except BaseException as error:
            _drop(connection)
            if isinstance(error, redis.RedisError | OSError) or not isinstance(error, Exception):
                raise
            raise _of_the_application(error) from error
        return AioWire(_take_writer(connection), whole=whole)

    @property
    def _blocks(self) -> bool:
        return self.prepare is not None or hasattr(self.pool, "service_name")

    def _aio_connection(self) -> Any:
        if self.prepare is not None:
            self.prepare()
        pool: Any = self.pool
        kind = _AIO_KINDS[_KINDS[pool.connection_class]]
        settings = self._settings(kind)
        if hasattr(self.pool, "service_name"):
            settings["host"], settings["port"] = pool.get_master_address()
        settings["socket_timeout"] = None  # the transport keeps the time, since it knows what may block
        return kind(**settings, retry=AsyncRetry(NoBackoff(), 0))

    def _settings(self, kind: type) -> dict[str, Any]:
        accepted = _parameters(kind)
        given = {k: v for k, v in self.pool.connection_kwargs.items() if k in accepted and k not in _DROPPED}
        for name in _SECONDS:
            given[name] = min(given.get(name) or self.timeout, self.longest_s)
        given["protocol"] = 2
        return given


def _take_writer(connection: Any) -> Any:
    """Take the stream from redis-py, which must neither close nor miss it from now on; None if there is none."""
    writer = connection._writer  # noqa: SLF001 - redis-py gives no other way
    connection._writer = connection._reader = None  # noqa: SLF001
    return writer


def _drop(connection: Any) -> None:
    """Drop at once what redis-py has opened so far, which it leaves to the garbage collector when it is cancelled."""
    writer = _take_writer(connection)
    if writer is not None:
        with contextlib.suppress(RuntimeError):  # the event loop was closed meanwhile
            writer.transport.abort()


async def _resolve(connection: Any) -> None:
    """Look the host up: asyncio would do so in a thread that, hung, delays the end of the loop and the process."""
    if isinstance(connection, aioredis.UnixDomainSocketConnection):
        return
    host = connection.host
    if numeric_addresses(host, connection.port):
        return
    arguments = dict(connection._connection_arguments())  # noqa: SLF001 - redis-py gives no other way
    connected = await reach(await in_daemon_thread(look_up, host, connection.port))
    del arguments["host"], arguments["port"]
    arguments |= {"sock": connected} | ({"server_hostname": host} if "ssl" in arguments else {})
    connection._connection_arguments = lambda: arguments  # noqa: SLF001


def _of_the_application(error: Exception) -> redis.ConnectionError:
    """Return what stands for an error of the user's code, such as a credential provider: trying again may help."""
    return redis.ConnectionError(f"the application's own code failed while connecting: {_told(error)}")


def _told(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - code of the application
        text = ""
    return f"{type(error).__name__}: {shown(text)}" if text else type(error).__name__


def _parameters(kind: type) -> set[str]:
    names: set[str] = set()
    for base in kind.__mro__:
        if (initializer := vars(base).get("__init__")) is not None:
            names.update(inspect.signature(initializer).parameters)
    return names


def make_client(url: str, timeout: float) -> redis.Redis:
    """Build a redis-py client for a checked URL; it connects on first use."""
    return redis.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), protocol=2
    )


def check_version(info: Mapping[str, str]) -> None:
    """Raise UnsupportedServerError when the server's own description names a version before Redis 6.2."""
    version = info.get("redis_version", "")
    numbers = tuple(int(n) for n in version.split(".")[:2] if n.isdigit())
    if numbers and numbers < OLDEST_SERVER:
        raise UnsupportedServerError(
            f"the server is version {version}; Redis 6.2 or Valkey 7.2 is the oldest supported"
        )


def _check_info(reply: bytes) -> None:
    check_version(parse_info(reply))


VERSION_CHECK: Final = plain(_check_info, "INFO", "server")
"""What each transport asks on its first connection; an ACL may deny it. Reading the reply raises as `check_version`."""
