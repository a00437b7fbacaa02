"""Pydantic models as JSON values: refuses what their own conversion would hide or leave out."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from queue_system.errors import UnserializableError
from queue_system.validation import type_name

_ABSENT: Final = object()
_MASKS: Final = ("**********", b"**********")
_MAX_DEPTH: Final = 200


def is_model(value: object) -> bool:
    """Return whether a value converts itself as pydantic's models do."""
    return hasattr(type(value), "model_dump")


def dump_model(model: Any, path: str) -> Any:
    """Return a model as the JSON value that its `model_dump` gives: fields by their names, computed fields with them.

    A conversion that the model defines (a serializer of a field or of the whole) is taken as it is.

    Raises:
        UnserializableError: with the path of a secret, of an excluded field, and of one that its declared type hides.
    """
    dumped = model.model_dump(mode="json")
    _compare(model, dumped, path, 0)
    return dumped


def _compare(value: Any, dumped: Any, path: str, depth: int) -> None:
    """Walk through a value and what became of it. Where their shapes differ, the model has a conversion of its own."""
    if depth > _MAX_DEPTH:
        return  # whatever is so deep is refused elsewhere
    if hasattr(value, "get_secret_value"):
        if dumped in _MASKS:
            raise UnserializableError(
                path,
                f"expected a value that JSON can carry, got {type_name(value)}, and the processor would get {dumped!r};"
                " enqueue a reference to the secret, or value.get_secret_value()",
            )
    elif isinstance(value, float) and dumped is None:
        raise UnserializableError(path, f"JSON has no {value!r}; send None or a string")
    elif is_model(value):
        _compare_model(value, dumped, path, depth)
    elif dataclasses.is_dataclass(value) and isinstance(dumped, Mapping):
        members = {field.name: getattr(value, field.name, _ABSENT) for field in dataclasses.fields(value)}
        _compare_members(members, {}, dumped, path, depth)
    else:
        for part, became, place in _pairs(value, dumped, path):
            _compare(part, became, place, depth + 1)


def _compare_model(model: Any, dumped: Any, path: str, depth: int) -> None:
    kind = type(model)
    if _has_own_conversion(kind):
        return
    members = vars(model)
    if set(kind.model_fields) == {"root"}:
        _compare(members.get("root"), dumped, path, depth + 1)
    elif isinstance(dumped, Mapping):
        aliases = {name: field.serialization_alias or name for name, field in kind.model_fields.items()}
        extra = getattr(model, "__pydantic_extra__", None) or {}
        _compare_members({name: members.get(name, _ABSENT) for name in aliases} | extra, aliases, dumped, path, depth)


def _compare_members(
    members: Mapping[str, Any], aliases: Mapping[str, str], dumped: Mapping[str, Any], path: str, depth: int
) -> None:
    for name, value in members.items():
        key = name if name in dumped else aliases.get(name, name)
        if value is _ABSENT:
            continue
        if key not in dumped:
            raise UnserializableError(
                f"{path}.{name}",
                "the model leaves this field out, so the processor would not get it; do not exclude it, declare the"
                " field that holds it as SerializeAsAny, or enqueue a model without it",
            )
        _compare(value, dumped[key], f"{path}.{name}", depth + 1)


def _pairs(value: Any, dumped: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """Return the parts of a collection beside what became of them."""
    if not isinstance(value, Collection) or isinstance(value, str | bytes | bytearray):
        return
    if isinstance(value, Mapping) and isinstance(dumped, Mapping):
        if len(dumped) < len(value):
            raise UnserializableError(path, "two of its members would get the same name")
        for (key, part), became in zip(value.items(), dumped.values(), strict=False):
            yield part, became, f"{path}.{key}"
    elif isinstance(dumped, list) and len(dumped) == len(value):
        for i, (part, became) in enumerate(zip(value, dumped, strict=True)):
            yield part, became, f"{path}[{i}]"


def _has_own_conversion(kind: Any) -> bool:
    return bool(getattr(getattr(kind, "__pydantic_decorators__", None), "model_serializers", None))
