"""Entities and results as JSON: strict, so that nothing changes silently on its way. Never talks to Redis."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from queue_system.errors import UnserializableError, cut_text
from queue_system.model.dumping import dump_model, is_model
from queue_system.model.nesting import MAX_DEPTH, SHALLOW_BYTES, has_many_parts, nesting
from queue_system.validation import shown, type_name

Serializer = Callable[[Any], Any]

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_canonical_encoder = msgspec.json.Encoder(order="deterministic")
_MAX_DEPTH = 200
_LONGEST_NAME = 80
_LONGEST_PATH = 400
_MAX_BITS = 14_000  # about 4,200 digits, which Python reads back
_TEXTUAL = (uuid.UUID, decimal.Decimal)


def encode_entity(entity: object, serializer: Serializer | None = None, field: str = "entity") -> bytes:
    """Encode a value as JSON.

    Dates and times become ISO 8601, UUID and Decimal strings, an Enum its value, a set a list, bytes base64,
    dataclasses and pydantic models objects. A model's fields keep their names, whatever their aliases, unless it says
    `serialize_by_alias`; computed fields come along, private attributes do not. `serializer` is called for the rest.

    Raises:
        UnserializableError: naming the path, for NaN, infinities, lone surrogates, cycles, unknown types, and what a
            conversion would hide or leave out: secrets and excluded fields of pydantic, a zone that ISO 8601 lacks.
    """
    # The usual entity survives a round trip unchanged, which proves in C that JSON carries it.
    try:
        encoded = _encoder.encode(entity)
        if _decoder.decode(encoded) == entity and (len(encoded) < SHALLOW_BYTES or not _is_too_deep(encoded)):
            return encoded
    except Exception:  # noqa: BLE001, S110 - the slow way finds out what is wrong, and where
        pass
    return _encoder.encode(_plain(entity, field, serializer, ()))


def encode_entities(entities: Sequence[object], serializer: Serializer | None = None) -> list[bytes]:
    """Encode the entities of a batch, each as `encode_entity` does; the usual ones are proven in one go."""
    try:
        encoded = [_encoder.encode(entity) for entity in entities]
        proven = _decoder.decode(b"[%b]" % b",".join(encoded)) == list(entities)
        if proven and (max(map(len, encoded), default=0) < SHALLOW_BYTES or not any(map(_is_too_deep, encoded))):
            return encoded
    except Exception:  # noqa: BLE001, S110 - the slow way finds out what is wrong, and where
        pass
    return [encode_entity(entity, serializer, f"entities[{i}]") for i, entity in enumerate(entities)]


def _is_too_deep(encoded: bytes) -> bool:
    return has_many_parts(encoded) and nesting(encoded) >= MAX_DEPTH  # the item around it is one level more


def canonical_entity(entity: object) -> bytes:
    """Encode an entity so that equal ones give equal bytes, whatever the order of their members."""
    return _canonical_encoder.encode(_decoder.decode(encode_entity(entity)))


def decode_entity(encoded: bytes) -> Any:
    """Decode JSON; raise ValueError or RecursionError when it is none."""
    return _decoder.decode(encoded)


def _plain(value: Any, path: str, serializer: Serializer | None, parents: tuple[int, ...]) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, bool | str | int | float):
        return _scalar(value, path)
    if id(value) in parents:
        raise UnserializableError(path, "it contains itself; JSON cannot carry a cycle")
    if len(parents) >= _MAX_DEPTH:
        raise UnserializableError(path, f"it is nested deeper than {_MAX_DEPTH} levels")
    inside = (*parents, id(value))
    if isinstance(value, Mapping):
        return _members(value, path, serializer, inside)
    if isinstance(value, list | tuple):
        return [_plain(v, _inside(path, f"[{i}]"), serializer, inside) for i, v in enumerate(value)]
    try:
        converted = _convert(value, path)
    except UnserializableError:
        raise
    except Exception as error:
        raise UnserializableError(path, f"{type_name(value)} cannot be converted: {_described(error)}") from error
    if converted is _UNKNOWN:
        converted = _serialized(serializer, value, path)
    return _plain(converted, path, serializer, inside)


def _inside(path: str, step: str) -> str:
    """Return the path to a member. It costs no more, and says no more, however long the names on the way are."""
    if len(step) > _LONGEST_NAME:
        step = f"{step[:_LONGEST_NAME]}…"
    if len(path) > _LONGEST_PATH:
        path = f"{path[:_LONGEST_NAME]}…{path[_LONGEST_NAME - _LONGEST_PATH :]}"
    return path + step


def _described(error: Exception) -> str:
    try:
        return cut_text(str(error))
    except Exception:  # noqa: BLE001 - a hostile __str__
        return "its text cannot be read"


def _scalar(value: Any, path: str) -> Any:
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnserializableError(path, f"JSON has no {value!r}; send None or a string")
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > _MAX_BITS:
            raise UnserializableError(path, f"an integer of {value.bit_length()} bits is too long; send a string")
        return int(value)
    return value


def _members(
    value: Mapping[Any, Any], path: str, serializer: Serializer | None, inside: tuple[int, ...]
) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, member in value.items():
        name = _member(key, path)
        if name in members:
            raise UnserializableError(path, f"two of its members would be named {name[:_LONGEST_NAME]!a}")
        members[name] = _plain(member, _inside(path, f".{name}"), serializer, inside)
    return members


_UNKNOWN = object()


def _convert(value: Any, path: str) -> Any:
    match value:
        case dt.datetime(tzinfo=None, fold=1):
            raise UnserializableError(path, "it has fold=1 but no zone, which ISO 8601 cannot express; give it a zone")
        case dt.time(tzinfo=dt.tzinfo()) if value.utcoffset() is None:
            raise UnserializableError(path, f"its zone {value.tzinfo} has no offset without a date; send a datetime")
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case set() | frozenset():
            return _sorted(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case _ if isinstance(value, _TEXTUAL):
            return str(value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        case _ if is_model(value):
            return dump_model(value, path)
        case msgspec.Struct():
            return msgspec.structs.asdict(value)
        case _:
            return _UNKNOWN


def _sorted(values: set[Any] | frozenset[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def _serialized(serializer: Serializer | None, value: Any, path: str) -> Any:
    if serializer is None:
        problem = f"expected a value that JSON can carry, got {type_name(value)}"
        raise UnserializableError(path, f"{problem}; convert it, or pass custom_serializer")
    try:
        converted = serializer(value)
    except Exception as error:
        raise UnserializableError(
            path, f"custom_serializer raised {type(error).__name__}: {_described(error)}"
        ) from error
    if type(converted) is type(value):
        problem = f"expected another type from custom_serializer, got {type_name(converted)} again"
        raise UnserializableError(path, problem)
    return converted


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UnserializableError(path, f"it holds a lone surrogate at position {error.start}") from None
    return str(value)


def _member(key: Any, path: str) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str):
        return _text(key, f"{path}.{key[:_LONGEST_NAME]!a}")
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    if isinstance(key, dt.date | dt.time | uuid.UUID):
        return key.isoformat() if isinstance(key, dt.date | dt.time) else str(key)
    raise UnserializableError(path, f"expected a member's name to be text, got {shown(key)}")
