"""Serves the dashboard on a port of its own."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn

from queue_system.config import QueueConfig
from queue_system.dashboard.access import AuthHook, is_loopback
from queue_system.dashboard.app import create_app
from queue_system.dashboard.proxy import check_root_path
from queue_system.monitoring.connections import StreamProtocol
from queue_system.validation import check_text, check_whole, refused, shown

_GRACE_S = 3


def serve(  # noqa: PLR0913 - those of `create_app`, and where to listen
    config: QueueConfig,
    host: str = "127.0.0.1",
    port: int = 9180,
    *,
    token: str | None = None,
    auth: AuthHook | None = None,
    writable: bool = False,
    allowed_hosts: Sequence[str] | None = None,
    root_path: str = "",
    trusted_proxies: Sequence[str] = (),
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the dashboard until SIGINT or SIGTERM. The arguments are those of `create_app`.

    `ready` is called with the address once it listens. A restart ends all sessions.

    Raises:
        InvalidInputError: `host` is reached from other machines, and neither `token` nor `auth` says who may come.
        OSError: the port cannot be opened.
    """
    check_bind(check_text("host", host, "an address"), token, auth)
    check_whole("port", port, 0, 65535)
    app = create_app(
        config, token=token, auth=auth, writable=writable, allowed_hosts=allowed_hosts, root_path=root_path,
        trusted_proxies=trusted_proxies, secret=secrets.token_bytes(32),
    )  # fmt: skip
    settings = uvicorn.Config(
        app, http=StreamProtocol, ws="none", access_log=False, log_level="warning", server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=_GRACE_S,
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt), _listen(host, port) as listening:
        address = _address(listening, check_root_path(root_path))
        config.log.info("dashboard serves", address=address, writable=writable)
        if ready is not None:
            ready(address)
        _Server(settings).run([listening])


def check_bind(host: str, token: str | None, auth: AuthHook | None) -> None:
    """Raise InvalidInputError for a host that other machines reach, when there is no rule for who may visit."""
    if token is None and auth is None and not is_loopback(host):
        expected = "an address of this machine only, since there is no token"
        raise refused("host", expected, shown(host), "give a token, or use 127.0.0.1")


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _address(listening: socket.socket, root: str) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{root}/"


class _Server(uvicorn.Server):
    """A server that ends the streams of live stats first: they would keep it from ending."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        await app.state.sampler.close()
        await super().shutdown(sockets)
