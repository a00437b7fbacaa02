"""Puts the dashboard together as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route, Router

from queue_system.config import QueueConfig
from queue_system.dashboard.access import Access, AuthHook
from queue_system.dashboard.dead_letters import DeadLetters
from queue_system.dashboard.live import Live
from queue_system.dashboard.login import Login
from queue_system.dashboard.pages import Pages
from queue_system.dashboard.proxy import Behind, check_proxies, check_root_path
from queue_system.dashboard.rendering import Renderer
from queue_system.dashboard.sampler import Sampler
from queue_system.dashboard.shield import Admission, Shield
from queue_system.errors import QueueSystemError
from queue_system.validation import check_instance, refused


def create_app(  # noqa: PLR0913 - one for each rule of who may come, and from where
    config: QueueConfig,
    *,
    token: str | None = None,
    auth: AuthHook | None = None,
    writable: bool = False,
    allowed_hosts: Sequence[str] | None = None,
    root_path: str = "",
    trusted_proxies: Sequence[str] = (),
    secret: bytes | None = None,
) -> Starlette:
    """Return the dashboard as an application to run, or to mount under a path of another one.

    Args:
        config: whose queues are shown.
        token: who shows it, as `Authorization: Bearer` or in the login form, is let in; at least 16 characters.
        auth: called with each request (a `starlette.requests.HTTPConnection`); lets it in by returning True. May be
            async. Without `token` and `auth`, only this machine is answered.
        writable: whether dead letters may be retried and dropped. By default the dashboard only reads.
        allowed_hosts: the names by which browsers reach it, loopback names aside. Name them where `auth` trusts an
            address alone. None: every name with `token` or `auth`, else none.
        root_path: the path below which a proxy serves it, such as `/ops/queues`, whether or not that is cut off.
            An application that mounts it says so by itself.
        trusted_proxies: the addresses or networks of proxies whose `X-Forwarded-Prefix`, `-Proto`, `-Host` and `-For`
            are believed. Needs `token` or `auth`: who comes through a proxy looks like this machine.
        secret: what sessions and forms are bound to, where several processes serve one dashboard without a token.
            None: it follows from the token, or is a random one.

    Raises:
        InvalidInputError: an argument is wrong.
    """
    check_instance("config", config, QueueConfig)
    access = Access(token, auth, writable=writable, allowed_hosts=allowed_hosts, secret=secret)
    proxies = check_proxies(trusted_proxies)
    if proxies and access.local_only:
        expected = "a token or auth beside it, since behind a proxy everybody looks like this machine"
        raise refused("trusted_proxies", expected, "neither")
    renderer = Renderer()
    sampler = Sampler(config)
    pages = Pages(config, access, renderer, Live(renderer, sampler))
    login = Login(pages, config.log)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await sampler.close()

    admission = Middleware(Admission, access=access, log=config.log)
    app = Starlette(
        routes=[
            Route("/assets/{version}/{name}", pages.asset),
            Route("/login", login.form),
            Route("/login", login.enter, methods=["POST"]),
            Mount("/", Router(_admitted(pages, login), redirect_slashes=False), middleware=[admission]),
        ],
        middleware=[
            Middleware(Behind, root_path=check_root_path(root_path), proxies=proxies),
            Middleware(Shield, access=access),
        ],
        exception_handlers={QueueSystemError: pages.failed, HTTPException: pages.missing},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would lead to where the client's Host header says
    app.state.sampler = sampler
    return app


def _admitted(pages: Pages, login: Login) -> list[Route]:
    """Return the routes that need the access rules to admit the visitor."""
    dead_letters = DeadLetters(pages)
    return [
        Route("/", pages.overview),
        Route("/queues", pages.queues),
        Route("/workers", pages.workers),
        Route("/operations", pages.operation),
        Route("/operations/text", pages.operation_text),
        Route("/events", pages.events),
        Route("/logout", login.leave, methods=["POST"]),
        Route("/dead-letters", dead_letters.page),
        Route("/dead-letters/sure", dead_letters.sure, methods=["GET", "POST"]),
        Route("/dead-letters/change", dead_letters.change, methods=["POST"]),
        Route("/dead-letters/{source}/{letter_id}", dead_letters.show),
        Route("/dead-letters/{source}/{letter_id}/text", dead_letters.text),
    ]
