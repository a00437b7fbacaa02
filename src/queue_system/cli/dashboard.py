"""`dashboard`: serves the web dashboard until Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer

from queue_system.cli.exits import ExitCode, end_as_asked
from queue_system.cli.options import names, whole
from queue_system.cli.session import Session, command
from queue_system.errors import InvalidInputError
from queue_system.model.secret_file import read_secret


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "dashboard", has_json=False)(dashboard)


def dashboard(
    session: Session,
    *,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Where it listens; an address that other machines reach needs --token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(parser=whole(0, 65535), metavar="PORT", help="The port at which it listens.")
    ] = 9180,
    token: Annotated[str | None, typer.Option(metavar="TOKEN", help="What visitors must enter to sign in.")] = None,
    token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file with the token, such as a mounted secret.")
    ] = None,
    allowed_hosts: Annotated[
        str | None, typer.Option(metavar="NAMES", help="The host names under which it is visited, separated by commas.")
    ] = None,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="The path below which a proxy serves it, such as /ops/queues.")
    ] = "",
    trusted_proxies: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESSES", help="The proxies whose X-Forwarded-... headers are believed, separated by commas."
        ),
    ] = None,
    writable: Annotated[bool, typer.Option("--writable", help="Let visitors retry and drop dead letters.")] = False,
) -> None:
    """Serve the web dashboard until Ctrl-C; read-only unless --writable is given."""
    try:
        from queue_system.dashboard import serve  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as missing:
        session.output.error(f"the dashboard needs {missing.name}: pip install 'redis-queue-system[dashboard]'")
        raise typer.Exit(ExitCode.NEGATIVE) from missing
    token = _token(token, token_file)
    visited = None if allowed_hosts is None else names(allowed_hosts)

    def ready(address: str) -> None:
        rights = "retries and drops dead letters" if writable else "reads only"
        session.output.note(f"the dashboard is at {address} and {rights}; Ctrl-C ends it")

    try:
        serve(
            session.config, host, port, token=token, writable=writable, allowed_hosts=visited, root_path=root_path,
            trusted_proxies=names(trusted_proxies or ""), ready=ready,
        )  # fmt: skip
    except KeyboardInterrupt:
        end_as_asked()
    except (OSError, SystemExit) as error:  # uvicorn says what it is, and exits
        raise InvalidInputError("port", f"cannot listen at {host}:{port}; choose another port with --port") from error


def _token(token: str | None, token_file: str | None) -> str | None:
    if token_file is None:
        return token
    if token is not None:
        raise InvalidInputError("token_file", "the token is given as well; leave out one of the two")
    return read_secret("token_file", token_file)
