"""Entities as JSON: what is carried unchanged, what is converted, and what is refused with its path."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import json
import math
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.errors import UnserializableError
from queue_system.model.entity import canonical_entity, decode_entity, encode_entities, encode_entity
from queue_system.model.nesting import MAX_DEPTH
from tests.kit.refusals import refused

texts = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)
any_numbers = st.recursive(
    st.floats() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Row(msgspec.Struct):
    number: int


class Model(pydantic.BaseModel, arbitrary_types_allowed=True):
    when: dt.date
    extra: Any = None


@dataclass
class Point:
    x: int
    tags: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Sloppy:
    """Its `__eq__` expects its own kind only, as much code does."""

    id: int

    def __eq__(self, other: Any) -> bool:  # noqa: PYI032 - the sloppiness under test
        return bool(self.id == other.id)

    def __hash__(self) -> int:
        return self.id


class Base(pydantic.BaseModel):
    a: int = 1


class Derived(Base):
    b: int = 2


class Secretive(pydantic.BaseModel):
    password: pydantic.SecretStr = pydantic.SecretStr("hunter2")


class SecretBytes(pydantic.BaseModel):
    key: pydantic.SecretBytes = pydantic.SecretBytes(b"hunter2")


class Excluding(pydantic.BaseModel):
    kept: int = 1
    hidden: int = pydantic.Field(2, exclude=True)


class Holding(pydantic.BaseModel):
    inner: Any = None
    many: list[Base] = []
    table: dict[Any, Any] = {}


class Row2(pydantic.RootModel[list[pydantic.SecretStr]]):
    """A model that is a list."""


@pydantic.dataclasses.dataclass
class SecretPoint:
    secret: pydantic.SecretStr
    x: int = field(default=3, init=False)


class Revealing(pydantic.BaseModel):
    password: pydantic.SecretStr = pydantic.SecretStr("hunter2")

    @pydantic.field_serializer("password")
    def reveal(self, value: pydantic.SecretStr) -> str:
        return value.get_secret_value()


class Own(pydantic.BaseModel):
    a: int = pydantic.Field(1, exclude=True)

    @pydantic.model_serializer
    def whole(self) -> dict[str, int]:
        return {"n": self.a}


class Aliased(pydantic.BaseModel):
    first: int = pydantic.Field(1, alias="First", serialization_alias="F")
    _private: int = pydantic.PrivateAttr(5)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.first


class ByAlias(pydantic.BaseModel, serialize_by_alias=True):
    first: int = pydantic.Field(1, serialization_alias="F")


class Open(pydantic.BaseModel, extra="allow"):
    a: int = 1


class Opaque:
    """JSON cannot carry it, and nothing converts it."""


other = type("Other", (), {})


def raises(value: Any) -> Any:
    raise KeyError(value)


def nested(depth: int, value: Any = 1) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def identical(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal and of the same types: 1, 1.0 and True are not the same."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(identical(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(identical, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


@given(json_values)
def test_a_json_value_comes_back_the_same_in_value_type_and_order(value: Any) -> None:
    encoded = encode_entity(value)
    assert identical(decode_entity(encoded), value)
    assert identical(json.loads(encoded), value)


@given(any_numbers)
def test_a_number_comes_back_the_same_or_is_refused(value: Any) -> None:
    try:
        encoded = encode_entity(value)
    except UnserializableError:
        assert "nan" in repr(value) or "inf" in repr(value)
    else:
        assert identical(decode_entity(encoded), value)


@given(st.text())
def test_a_text_comes_back_the_same_or_holds_a_lone_surrogate(value: str) -> None:
    try:
        encoded = encode_entity({"text": value})
    except UnserializableError as error:
        assert any("\ud800" <= character <= "\udfff" for character in value)
        assert error.field == "entity.text"  # noqa: PT017 - either branch is right
    else:
        assert decode_entity(encoded) == {"text": value}


@pytest.mark.parametrize(
    "value, carried",
    [
        (dt.datetime(2024, 5, 6, 7, 8, 9, 10, dt.UTC), "2024-05-06T07:08:09.000010+00:00"),
        (dt.datetime.fromisoformat("2024-10-27T02:30"), "2024-10-27T02:30:00"),
        (dt.date(2024, 5, 6), "2024-05-06"),
        (dt.time(7, 8), "07:08:00"),
        (dt.time(1, 2, tzinfo=dt.UTC), "01:02:00+00:00"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (decimal.Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (Word.YES, "yes"),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ((1, (2,)), [1, [2]]),
        (b"\x00\xff", "AP8="),
        (bytearray(b"ab"), "YWI="),
        (memoryview(b"ab"), "YWI="),
        (Point(1, {"t"}), {"x": 1, "tags": ["t"]}),
        (Sloppy(1), {"id": 1}),
        (Row(7), {"number": 7}),
        (OrderedDict(b=1, a=(2,)), {"b": 1, "a": [2]}),
        ({1: "one", dt.date(2024, 1, 2): "day", uuid.UUID(int=1): "id", Colour.RED: "enum"},
         {"1": "one", "2024-01-02": "day", "00000000-0000-0000-0000-000000000001": "id", "red": "enum"}),
        ({dt.time(1): [Colour.RED]}, {"01:00:00": ["red"]}),
        (2**70, 2**70),
        (-(2**63), -(2**63)),
        (Model(when=dt.date(2024, 1, 2)), {"when": "2024-01-02", "extra": None}),
        (Revealing(), {"password": "hunter2"}),
        (Holding(inner=Revealing()), {"inner": {"password": "hunter2"}, "many": [], "table": {}}),
        (Own(a=1), {"n": 1}),
        (Aliased(First=4), {"first": 4, "twice": 8}),
        (ByAlias(first=4), {"F": 4}),
        (Open(a=1, more=[Base()]), {"a": 1, "more": [{"a": 1}]}),  # type: ignore[call-arg]
        (Secretive(password=pydantic.SecretStr("")), {"password": ""}),
        (pydantic.RootModel[list[int]]([1]), [1]),
        (Aliased.model_construct(), {"first": 1, "twice": 2}),
    ],
)  # fmt: skip
def test_a_type_of_the_documented_list_is_converted(value: Any, carried: Any) -> None:
    """By the conversions that a model defines, and under the names of its fields."""
    assert decode_entity(encode_entity(value)) == carried
    assert decode_entity(encode_entity({"in": [value]})) == {"in": [carried]}


def test_a_set_that_cannot_be_sorted_keeps_all_its_members() -> None:
    assert sorted(decode_entity(encode_entity({1, "a", (2,)})), key=str) == [1, [2], "a"]


@pytest.mark.parametrize(
    "value, path",
    [
        (math.nan, "entity"),
        ({"items": [1, {"price": math.nan}]}, "entity.items[1].price"),
        ([math.inf], "entity[0]"),
        ((-math.inf,), "entity[0]"),
        ({"n": 10**5000}, "entity.n"),
        ({"a": {"b": "x\ud800"}}, "entity.a.b"),
        ({"a": {"\udfff": 1}}, r"entity.a.'\udfff'"),
        ({"a": Opaque()}, "entity.a"),
        ({"a": deque([1])}, "entity.a"),
        ([object], "entity[0]"),
        ([Point], "entity[0]"),
        ({"a": {None: 1}}, "entity.a"),
        ({"a": {True: 1}}, "entity.a"),
        ({"a": {1.5: 1}}, "entity.a"),
        (Point(1, {"\ud800"}), "entity.tags[0]"),
        ({"raw": msgspec.Raw(b"[")}, "entity.raw"),
        ({"unset": msgspec.UNSET}, "entity.unset"),
        (1j, "entity"),
        ({1: "number", "1": "text"}, "entity"),
        ({"m": Model(when=dt.date(2024, 1, 2), extra=Opaque())}, "entity.m"),
        (Secretive(), "entity.password"),
        (SecretBytes(), "entity.key"),
        ({"users": [Secretive()]}, "entity.users[0].password"),
        (Holding(inner=Secretive()), "entity.inner.password"),
        (Holding(inner=[(pydantic.SecretStr("x"),)]), "entity.inner[0][0]"),
        (Holding(inner={"k": pydantic.SecretStr("x")}), "entity.inner.k"),
        (Row2([pydantic.SecretStr("x")]), "entity[0]"),
        (SecretPoint(pydantic.SecretStr("x")), "entity.secret"),
        (Open(a=1, more=pydantic.SecretStr("x")), "entity.more"),  # type: ignore[call-arg]
        ({"secret": pydantic.SecretStr("x")}, "entity.secret"),
        (Excluding(hidden=2), "entity.hidden"),
        (Holding(inner=Excluding(hidden=2)), "entity.inner.hidden"),
        (Holding(many=[Base(), Derived()]), "entity.many[1].b"),
        (Holding(table={1: "a", "1": "b"}), "entity.table"),
        (Holding(inner=math.nan), "entity.inner"),
        (dt.datetime.fromisoformat("2024-10-27T02:30").replace(fold=1), "entity"),
        (dt.time(1, 2, tzinfo=ZoneInfo("Europe/Berlin")), "entity"),
        ((n for n in range(3)), "entity"),
        ({"keys": {"a": 1}.keys()}, "entity.keys"),
        ({(1, 2): 3}, "entity"),
    ],
)
def test_what_json_cannot_carry_or_a_conversion_would_change_is_refused_with_its_path(value: Any, path: str) -> None:
    """Nothing is hidden, left out or merged silently, as JSON would merge members whose names become equal."""
    with refused(path, kind=UnserializableError) as caught:
        encode_entity(value)
    assert "hunter2" not in str(caught.value)
    with refused(path.replace("entity", "result[0]", 1), kind=UnserializableError):
        encode_entity([value], field="result")


@pytest.mark.parametrize(
    "value",
    [
        {"k" * 100_000: math.nan},
        {"k" * 100_000: {"l" * 100_000: [math.nan]}},
        {"\ud800" * 100_000: 1},
        {"k" * 50_000: {"é" * 50_000: ["x"], "x": [[[object()] * 3] * 3]}},
        functools.reduce(lambda inner, _: {"k" * 300: inner}, range(150), object()),
    ],
)
def test_a_path_is_cut_where_names_are_long_or_many(value: Any) -> None:
    with pytest.raises(UnserializableError) as caught:
        encode_entity(value)
    assert len(str(caught.value)) < 2_000
    assert caught.value.field.startswith("entity")


def test_a_cycle_is_refused_with_its_path() -> None:
    cycle: dict[str, Any] = {"a": [1, 2]}
    cycle["a"].append(cycle)
    with pytest.raises(UnserializableError, match=r"^entity\.a\[2\]: it contains itself"):
        encode_entity(cycle)


def test_the_same_value_twice_is_no_cycle() -> None:
    shared = [(1,)]
    assert decode_entity(encode_entity({"a": shared, "b": shared})) == {"a": [[1]], "b": [[1]]}


@pytest.mark.parametrize("deep", [nested(MAX_DEPTH), nested(MAX_DEPTH - 1, []), nested(MAX_DEPTH + 100)])
def test_an_entity_that_no_worker_would_decode_is_refused_at_enqueue(deep: Any) -> None:
    """It is nested plainly, so the encoder itself takes it; and many parts that are not nested pass."""
    assert encode_entity(nested(MAX_DEPTH - 1)) == b"[" * (MAX_DEPTH - 1) + b"1" + b"]" * (MAX_DEPTH - 1)
    assert encode_entities([[[]] * 2 * MAX_DEPTH])
    with pytest.raises(UnserializableError, match="nested deeper"):
        encode_entity(deep)
    with pytest.raises(UnserializableError, match=r"entities\[1\].*nested deeper"):
        encode_entities([{}, deep])


def test_a_value_nested_too_deep_is_refused() -> None:
    assert decode_entity(encode_entity(nested(150))) == nested(150)
    with pytest.raises(UnserializableError, match="nested deeper"):
        encode_entity(nested(100_000))


def test_a_serializer_is_called_only_for_what_is_left_and_its_answer_is_converted_too() -> None:
    seen: list[Any] = []

    def serializer(value: Any) -> Any:
        seen.append(value)
        return {"opaque": {dt.date(2024, 1, 2)}}

    opaque = Opaque()
    encoded = encode_entity({"a": opaque, "b": Colour.RED}, serializer)
    assert decode_entity(encoded) == {"a": {"opaque": ["2024-01-02"]}, "b": "red"}
    assert seen == [opaque]


@pytest.mark.parametrize(
    "serializer, said",
    [
        (raises, r"^entity\.a: custom_serializer raised KeyError"),
        (lambda value: value, r"^entity\.a: expected another type from custom_serializer, got Opaque again"),
        (lambda value: Opaque() if isinstance(value, other) else other(), "nested deeper"),
        (lambda value: {"wrapped": value}, "contains itself"),
    ],
    ids=["raises", "gives its value back", "never ends", "wraps its value"],
)
def test_a_serializer_that_does_not_convert_its_value_is_refused(serializer: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(UnserializableError, match=said) as caught:
        encode_entity({"a": Opaque()}, serializer)
    assert isinstance(caught.value.__cause__, KeyError) is (serializer is raises)


@given(st.dictionaries(texts, json_values, max_size=6), st.randoms(use_true_random=False))
def test_the_canonical_form_ignores_the_order_of_members(entity: dict[str, Any], random: Any) -> None:
    items = list(entity.items())
    random.shuffle(items)
    assert canonical_entity(dict(items)) == canonical_entity(entity)
    assert decode_entity(canonical_entity(entity)) == entity


@pytest.mark.parametrize("text", [b"", b"{", b"nope", b"[1,]", b"NaN", b"\xff"])
def test_decoding_what_is_no_json_raises_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_entity(text)
