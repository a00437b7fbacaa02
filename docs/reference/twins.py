"""Lets the reference show methods that are made from steps as what they are. Never shows what callers do not see."""

from __future__ import annotations

from typing import Any

import griffe


class Twins(griffe.Extension):
    """Shows `@blocking` methods with their result, and `name = awaiting(method)` as an async method."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Change the members of a class that was read."""
        for name, member in list(cls.members.items()):
            match member:
                case griffe.Function(returns=griffe.ExprSubscript() as steps) if steps.canonical_name == "Flow":
                    member.returns = steps.slice
                case griffe.Attribute(
                    value=griffe.ExprCall(function=griffe.ExprName(name="awaiting"), arguments=[made])
                ):
                    cls.set_member(name, _async_twin(name, member, cls.members[str(made)]))


def _async_twin(name: str, attribute: griffe.Attribute, blocking: Any) -> griffe.Function:
    twin = griffe.Function(name, parameters=blocking.parameters, returns=blocking.returns, lineno=attribute.lineno)
    twin.labels.add("async")
    twin.docstring = griffe.Docstring(
        f"Does what `{blocking.name}` does, without blocking the event loop.", parent=twin
    )
    return twin
