"""Lets the reference show methods that are made from steps as what they are. Never shows what callers do not see."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import griffe

KINDS: dict[Any, griffe.ParameterKind] = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
}


class Twins(griffe.Extension):
    """Shows `@blocking` methods with their result, and `name = awaiting(method)` as an async method."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Change the members of a class that was read."""
        for name, member in list(cls.members.items()):
            if isinstance(member, griffe.Function) and any(
                str(d.value).startswith("taking") for d in member.decorators
            ):
                _tell_arguments(member, getattr(importlib.import_module(cls.module.path), cls.name))
            match member:
                case griffe.Function(returns=griffe.ExprSubscript() as steps) if steps.canonical_name == "Flow":
                    member.returns = steps.slice
                case griffe.Attribute(
                    value=griffe.ExprCall(function=griffe.ExprName(name="awaiting"), arguments=[made])
                ):
                    cls.set_member(name, _async_twin(name, member, cls.members[str(made)]))


def _tell_arguments(method: griffe.Function, owner: type) -> None:
    """Give a method that takes a record the arguments and the docstring that its callers see."""
    called = getattr(owner, method.name)
    method.parameters = griffe.Parameters(
        *[
            griffe.Parameter(
                each.name,
                annotation=None if each.annotation is each.empty else each.annotation,
                kind=KINDS[each.kind],
                default=None if each.default is each.empty else repr(each.default),
            )
            for each in inspect.signature(called).parameters.values()
        ]
    )
    method.docstring = griffe.Docstring(inspect.getdoc(called) or "", parent=method, lineno=method.lineno)


def _async_twin(name: str, attribute: griffe.Attribute, blocking: Any) -> griffe.Function:
    twin = griffe.Function(name, parameters=blocking.parameters, returns=blocking.returns, lineno=attribute.lineno)
    twin.labels.add("async")
    twin.docstring = griffe.Docstring(
        f"Does what `{blocking.name}` does, without blocking the event loop.", parent=twin
    )
    return twin
