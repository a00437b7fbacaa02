"""Which options came from the environment, and from which variables."""

from __future__ import annotations

from typing import Any


def variables_of(context: Any) -> dict[str, str]:
    """Return the variable of each option, of a command or before it, whose value came from the environment."""
    found: dict[str, str] = {}
    while context is not None:
        for parameter in context.command.get_params(context):
            source = context.get_parameter_source(parameter.name)
            if source is not None and source.name == "ENVIRONMENT":
                found.setdefault(parameter.name, variable_of(context, parameter))
        context = context.parent
    return found


def variable_of(context: Any, parameter: Any) -> str:
    """Return the environment variable that an option may come from."""
    return str(parameter.envvar or f"{context.auto_envvar_prefix}_{parameter.name.upper()}")
