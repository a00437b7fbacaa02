"""Which server is meant: a client's, a URL's, the environment's, or an embedded one. Connects to nothing by itself."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from queue_system.broker.connection import Endpoint
from queue_system.broker.embedded import DATA_DIR_VARIABLE, DEFAULT_DATA_DIR, data_dir_from_url, ensure_server
from queue_system.broker.failures import typed
from queue_system.broker.routes import Route
from queue_system.broker.sentinel import Sentinels, sentinel_address
from queue_system.broker.urls import Servers, read_url
from queue_system.errors import InvalidInputError, ServerUnreachableError
from queue_system.model.secret_file import read_secret
from queue_system.resilience import retry_with_backoff

_URL_VARIABLES: Final = ("QUEUE_SYSTEM_REDIS_URL", "REDIS_URL")
_URL_FILE: Final = "QUEUE_SYSTEM_REDIS_URL_FILE"


class Server:
    """One server, or the primary that sentinels name, chosen when it is first asked for.

    `client` and `servers` are checked; `timeout` is the limit, in s, of connecting to it and of its silence.
    Thread-safe, and safe across a fork.
    """

    def __init__(self, client: redis.Redis | None, servers: Servers | None, timeout: float) -> None:
        self.timeout: Final = timeout
        self._client = client
        self._servers = servers
        self._data_dir: Path | None = None
        self.route = Route(self._choose, lambda: self.address)
        """Leads to the server in force."""

    @property
    def known_client(self) -> redis.Redis | None:
        """The client that was given, or made since; None before there was need of one."""
        return self._client

    @known_client.setter
    def known_client(self, client: redis.Redis | None) -> None:
        self._client = client

    def client(self) -> redis.Redis:
        """Return a redis-py client, which connects on first use; starts an embedded server where that is the choice."""
        if self._client is None:
            self._client = self._resolved().client(self.timeout)
        return self._client

    def answering_client(self, retries: int) -> redis.Redis:
        """Return the client once it has answered a ping, connecting with up to `retries` retries.

        Raises:
            ServerUnreachableError: there was no answer.
        """

        @retry_with_backoff(max_retries=retries, base_delay=0.05, max_delay=2.0, exceptions=(ServerUnreachableError,))
        def ping() -> redis.Redis:
            client = self.client()
            try:
                client.ping()
            except (redis.RedisError, OSError) as error:
                raise typed(error, self.address) from error
            return client

        return ping()

    def sentinels(self) -> Sentinels | None:
        """Return somebody new who asks the sentinels that are named; None if none are. Starts nothing."""
        if self._client is None and isinstance(self._chosen(), Path):
            return None
        pool: Any = self.client().connection_pool
        return Sentinels(pool, self.timeout) if hasattr(pool, "service_name") else None

    def endpoint(self) -> Endpoint:
        """Return where it is and how to connect to it; starts an embedded server where that is the choice."""
        return self.route()

    @property
    def address(self) -> str:
        """Its address for messages, without credentials. Connects to nothing, and starts nothing.

        Of a primary, it is that of the sentinels, and stays the same whichever server is the primary.
        """
        if self._client is not None and self._data_dir is None:
            return _address(self._client)
        chosen = self._chosen()
        return f"embedded://{chosen}" if isinstance(chosen, Path) else _address(chosen.client(self.timeout))

    def missing_data_dir(self) -> Path | None:
        """Return the folder in which the first call would start an embedded server that has never been; else None."""
        chosen = None if self._client is not None else self._chosen()
        return chosen if isinstance(chosen, Path) and not chosen.exists() else None

    def _choose(self) -> Endpoint | Sentinels:
        """Return where the server is, or who knows that of one that is replaced when it fails."""
        pool = self.client().connection_pool
        if hasattr(pool, "service_name"):
            return Sentinels(pool, self.timeout)
        prepare = None if self._data_dir is None else partial(ensure_server, self._data_dir)
        return Endpoint(pool, self.timeout, prepare)

    def _resolved(self) -> Servers:
        chosen = self._chosen()
        if isinstance(chosen, Servers):
            return chosen
        self._data_dir = chosen
        return Servers(ensure_server(chosen).url)

    def _chosen(self) -> Servers | Path:
        """Return which servers the URL means, or the folder of an embedded one."""
        servers = self._servers or _servers_of_environment()
        if servers is None:
            return Path(os.environ.get(DATA_DIR_VARIABLE) or DEFAULT_DATA_DIR).absolute()
        return data_dir_from_url(servers.url) if servers.is_embedded else servers


def _address(client: redis.Redis) -> str:
    pool = client.connection_pool
    return sentinel_address(pool) if hasattr(pool, "service_name") else Endpoint(pool, 1.0).address


def _servers_of_environment() -> Servers | None:
    """Return what the URL means that the environment names, or that lies in the file which it names, if there is one.

    Raises InvalidInputError, which names the variable.
    """
    found = {name: value for name in _URL_VARIABLES if (value := os.environ.get(name))}
    if path := os.environ.get(_URL_FILE):
        if _URL_VARIABLES[0] in found:
            raise InvalidInputError(_URL_FILE, f"{_URL_VARIABLES[0]} is set as well; unset one of the two")
        found = {_URL_FILE: read_secret(_URL_FILE, path)}
    for variable, url in found.items():
        try:
            return read_url(url)
        except InvalidInputError as error:
            raise InvalidInputError(variable, str(error).removeprefix(f"{error.field}: ")) from None
    return None
