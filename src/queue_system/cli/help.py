"""Commands whose help leaves out types that say nothing: those of flags and of arguments."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


def _without_types(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _no_type
        elif getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


def _usage(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return f"{name if argument.required else f'[{name}]'}{'' if argument.nargs == 1 else '...'}"


def _no_type(ctx: Any) -> None:
    """Stand in for the type beside an argument, whose name and sentence say enough."""


class PlainCommand(TyperCommand):
    """A command."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return `[OPTIONS]` and its arguments: `NAME`, `[NAME]` where it may be left out, `...` after several."""
        arguments = [each for each in self.get_params(ctx) if each.param_type_name == "argument"]
        return [self.options_metavar or "", *map(_usage, arguments)]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return its options and arguments, `--help` included."""
        return _without_types(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group of commands, or the program."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return its options, `--help` included."""
        return _without_types(super().get_params(ctx))
