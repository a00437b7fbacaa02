"""What every command shares: the options that name the server, the output, the handling of errors."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Annotated, Any, Final, TypeAlias, get_type_hints

import typer

from queue_system import logs
from queue_system.cli.environment import variables_of
from queue_system.cli.exits import describe, exit_code
from queue_system.cli.help import PlainCommand
from queue_system.cli.output import Output
from queue_system.config import QueueConfig
from queue_system.errors import CertificateError, InvalidInputError, QueueSystemError, ServerUnreachableError
from queue_system.manager import QueueManager
from queue_system.model.secret_file import read_secret
from queue_system.supervision import WorkerSettings
from queue_system.supervision.targets import debug_hint, load_worker

_PANEL: Final = "Server"
_OPTIONS: Final = {
    "redis_url": "url",
    "queue_prefix": "prefix",
    "target": "config",
    "max_workers": "concurrency",
    "work_timeout": "timeout",
    "queue_name": "queue",
}
"""The options whose values the library knows by other names."""
_NAME_ONE: Final = "name one with --url or QUEUE_SYSTEM_REDIS_URL, or go to the folder where its workers run"
_ENCRYPTED: Final = ("rediss:", "valkeys:", "rediss+", "valkeys+")
_KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", envvar="QUEUE_SYSTEM_JSON", help="Print one JSON document instead of text.")
]
Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="QUEUE_SYSTEM_REDIS_URL",
        rich_help_panel=_PANEL,
        help="The server, such as redis://host:6379/0, or its sentinels, redis+sentinel://host1,host2/SERVICE."
        " Default: REDIS_URL, then an embedded one.",
    ),
]
UrlFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        envvar="QUEUE_SYSTEM_REDIS_URL_FILE",
        rich_help_panel=_PANEL,
        help="A file with the server's URL, such as a mounted secret.",
    ),
]
Prefix: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="TEXT", envvar="QUEUE_SYSTEM_PREFIX", rich_help_panel=_PANEL, help="What every key begins with."
    ),
]
Target: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:OBJECT",
        envvar="QUEUE_SYSTEM_CONFIG",
        rich_help_panel=_PANEL,
        help="A QueueConfig in your code, for settings such as signing keys.",
    ),
]
Debug: TypeAlias = Annotated[
    bool,
    typer.Option("--debug", envvar="QUEUE_SYSTEM_DEBUG", rich_help_panel=_PANEL, help="Show tracebacks and the log."),
]


@dataclass(frozen=True, slots=True)
class Shared:
    """The options that every command has, and the program before it: which server is meant, and how much is printed."""

    url: Url = field(default=None, repr=False)  # it may hold a password
    url_file: UrlFile = None
    prefix: Prefix = "queue:"
    config: Target = None
    debug: Debug = False


@dataclass(frozen=True, slots=True)
class Place(Shared):
    """The same options, put together from before the command and after it."""

    typed: frozenset[str] = frozenset()
    """The options that were typed, not taken from the environment."""

    @property
    def server_url(self) -> str | None:
        """The URL that is given, or lies in the file that is named. Raises InvalidInputError."""
        return self.url if self.url_file is None else read_secret("url_file", self.url_file)

    @classmethod
    def read(cls, context: typer.Context, given: Mapping[str, Any]) -> Place:
        """Read the options, which may stand before the command and after it; what is typed beats the environment.

        Raises:
            InvalidInputError: they name two servers.
        """
        before = context.obj if isinstance(context.obj, Place) else cls()
        here = frozenset(name for name in given if _is_typed(context, name))
        typed = here | before.typed
        values = {name: getattr(before, name) if name in before.typed - here else given[name] for name in given}
        if elsewhere := typed & {"url", "url_file", "prefix"}:
            if "config" in typed:
                extra = min(elsewhere).replace("_", "-")
                raise InvalidInputError("config", f"it already names the server and the prefix; leave out --{extra}")
            values["config"] = None
        if values.get("url") is not None and values.get("url_file") is not None:
            beaten = {"url", "url_file"} - typed
            if len(beaten) != 1:
                raise InvalidInputError("url_file", "the URL is given as well; leave out one of the two")
            values[beaten.pop()] = None
        return cls(**values, typed=typed)


class Session:
    """One run of one command."""

    def __init__(
        self, place: Place, output: Output, variables: Mapping[str, str] | None = None, *, starts_server: bool = False
    ) -> None:
        self.place = place
        self.output = output
        self.variables = variables or {}
        """The options that came from the environment, and their variables."""
        self._starts_server = starts_server

    @cached_property
    def config(self) -> QueueConfig:
        """The configuration that the options name. Raises InvalidInputError."""
        if self.place.config is not None:
            return asyncio.run(load_worker(WorkerSettings(target=self.place.config))).config
        config = QueueConfig(redis_url=self.place.server_url, queue_prefix=self.place.prefix)
        missing = config.missing_data_dir()
        if missing is not None and not self._starts_server:
            raise InvalidInputError(
                "url", f"no server is named, and there is no embedded server in {missing}; {_NAME_ONE}"
            )
        return config

    @cached_property
    def manager(self) -> QueueManager:
        """A manager of that configuration."""
        return QueueManager(self.config)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Turn typed errors into one line and an exit code; close what was opened."""
        try:
            yield
        except QueueSystemError as error:
            if self.place.debug:
                raise
            self.output.error(self._named(error))
            raise typer.Exit(exit_code(error)) from error
        finally:
            if "config" in vars(self):
                self.config.close()

    def _named(self, error: QueueSystemError) -> str:
        """Return what is wrong, by the name under which the caller gave it."""
        text = f"{describe(error)}{debug_hint(error)}"
        is_silent = isinstance(error, ServerUnreachableError) and not isinstance(error, CertificateError)
        if is_silent and (self.place.server_url or "").startswith(_ENCRYPTED):
            text += "; if the server does not use TLS on this port, use redis://"
        if isinstance(error, InvalidInputError) and (variable := self.variable_of(error.field)):
            return text.replace(error.field, variable, 1)
        return text

    def variable_of(self, field: str) -> str | None:
        """Return the environment variable from which a setting came, if it came from one."""
        return self.variables.get(_OPTIONS.get(field, field))


def command(
    group: typer.Typer, name: str, *, has_json: bool = True, starts_server: bool = False
) -> Callable[[Callable[..., None]], Any]:
    """Register a function of a session and options as a command; it gets the options of the server, and --json.

    An argument whose type is a dataclass stands for one option for each of its fields. With `starts_server`, an
    embedded server is started in a folder that never had one.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        run = _with_session(function, has_json=has_json, starts_server=starts_server)
        group.command(name, cls=PlainCommand)(run)
        return function

    return register


def _with_session(function: Callable[..., None], *, has_json: bool, starts_server: bool) -> Callable[..., None]:
    _session, *own = inspect.signature(function, eval_str=True).parameters.values()
    bundles: dict[str, Any] = {each.name: each.annotation for each in own if is_dataclass(each.annotation)}
    options = [
        _keyword("context", typer.Context),
        *(parameter.replace(kind=_KEYWORD) for parameter in own if parameter.name not in bundles),
        *(option for bundle in bundles.values() for option in _options(bundle)),
        *_options(Shared),
        *([_keyword("as_json", AsJson, default=False)] if has_json else []),
    ]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        context = given.pop("context")
        output = Output(as_json=given.pop("as_json", False))
        place = read_place(context, _take(Shared, given), output)
        _route_log(debug=place.debug)
        opened = Session(place, output, variables_of(context), starts_server=starts_server)
        with opened.running():
            function(opened, **{name: bundle(**_take(bundle, given)) for name, bundle in bundles.items()}, **given)

    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def _options(bundle: type) -> list[inspect.Parameter]:
    hints = get_type_hints(bundle, include_extras=True)
    return [_keyword(field.name, hints[field.name], field.default) for field in fields(bundle)]


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, _KEYWORD, annotation=annotation, default=default)


def _take(bundle: type, given: dict[str, Any]) -> dict[str, Any]:
    return {field.name: given.pop(field.name) for field in fields(bundle)}


def read_place(context: typer.Context, given: Mapping[str, Any], output: Output) -> Place:
    """Do what `Place.read` does, and leave the program if the options name two servers."""
    try:
        return Place.read(context, given)
    except InvalidInputError as error:
        output.error(str(error))
        raise typer.Exit(exit_code(error)) from error


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _route_log(*, debug: bool) -> None:
    """Let errors be reported once: by the command. With --debug, the log goes to stderr."""
    log = logging.getLogger("queue_system")
    if debug:
        logs.configure(level="DEBUG")
    elif not log.handlers:
        log.addHandler(logging.NullHandler())
