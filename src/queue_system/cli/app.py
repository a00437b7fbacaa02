"""The program: its commands, the options before them, and the message for a wrong command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from queue_system import __version__
from queue_system.cli import (
    bench,
    dashboard,
    dead_letters,
    doctor,
    enqueue,
    exporter,
    failover,
    operation,
    purge,
    status,
    worker,
)
from queue_system.cli.environment import variables_of
from queue_system.cli.exits import ExitCode
from queue_system.cli.help import PlainGroup
from queue_system.cli.output import Output
from queue_system.cli.printing import UnprintableError, printing
from queue_system.cli.session import Debug, Prefix, Target, Url, UrlFile, read_place

PROGRAM: Final = "queue-system"
_USAGE_ERROR: Final[type[Exception]] = typer.BadParameter.__mro__[1]  # typer gives it no public name
_CHOICE: Final = re.compile(r"(?:Value error, )?('.*') is not one of (.*?)\.?\Z", re.DOTALL)
"""How the library words a value that is not one of an option's choices."""
_EXIT_CODES: Final = (
    "Exit codes: 0 done or yes; 1 no or failed; 2 wrong command line; 3 the server does not answer; "
    "4 the server refuses; 5 timed out; 130 interrupted."
)

app = typer.Typer(
    name=PROGRAM,
    cls=PlainGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "QUEUE_SYSTEM", "help_option_names": ["-h", "--help"]},
    epilog=_EXIT_CODES,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    *,
    url: Url = None,
    url_file: UrlFile = None,
    prefix: Prefix = "queue:",
    config: Target = None,
    debug: Debug = False,
    show_version: Annotated[  # noqa: ARG001 - its callback acts
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, allow_from_autoenv=False, help="Show the version."
        ),
    ] = False,
) -> None:
    """Run and watch a job queue on Redis.

    Every option has an environment variable: `--help` of a command names it.
    """
    given = {"url": url, "url_file": url_file, "prefix": prefix, "config": config, "debug": debug}
    context.obj = read_place(context, given, Output(as_json=False))


for group in (worker, enqueue, status, operation, dead_letters, purge, failover, doctor, bench, dashboard, exporter):
    group.add_to(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program with these arguments, or this process's; return its exit code."""
    try:
        with printing():
            code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except _USAGE_ERROR as error:
        return _report(error)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except UnprintableError as error:
        if not error.quiet:
            Output(as_json=False).error(str(error))
        return ExitCode.NEGATIVE
    return code or ExitCode.DONE


def _report(error: Exception) -> int:
    """Say on one line what is wrong with the command line, and where to look."""
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if not message or context is None:
        return ExitCode.USAGE
    parameter = getattr(error, "param", None)
    told = getattr(error, "message", "")
    if parameter is not None and told and type(error) is typer.BadParameter:
        option = parameter.metavar or parameter.name if parameter.param_type_name == "argument" else parameter.opts[0]
        choice = _CHOICE.match(told)
        told = told if choice is None else f"expected one of {choice[2]}; got {choice[1]}"
        message = f"{variables_of(context).get(parameter.name, option)}: {told}"
    elif told and type(error) is typer.BadParameter:
        message = told
    Output(as_json=False).error(f"{' '.join(message.split()).rstrip('.')}; see '{context.command_path} --help'")
    return ExitCode.USAGE
