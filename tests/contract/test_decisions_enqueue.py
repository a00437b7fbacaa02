"""What is decided where the specification is silent: how operations come in."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import re
import uuid
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pydantic
import pytest
import redis

from queue_system import InvalidInputError, QueueConfig, QueueManager, QueueWorker, UnserializableError
from tests.kit.contents import documents
from tests.kit.inbox import Inbox
from tests.kit.servers import StartServer
from tests.kit.workers import running

NOON = dt.datetime(2024, 2, 29, 12, 0, 1, 5000, tzinfo=dt.UTC)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    at: dt.date


class Order(pydantic.BaseModel):
    id: uuid.UUID
    price: decimal.Decimal


async def handle(entity: Any) -> None: ...


@pytest.mark.parametrize("callbacks", [{}, {"on_success": handle}, {"on_failure": "app.alarm"}])
@pytest.mark.parametrize("batch", [False, True])
def test_the_answer_has_four_members(queue: QueueManager, callbacks: dict[str, Any], batch: bool) -> None:
    answer = queue.enqueue_batch([{}], handle, **callbacks)[0] if batch else queue.enqueue({}, handle, **callbacks)
    assert set(answer) == {"operation_id", "status", "has_callbacks", "enqueue_time_ms"}
    assert answer["status"] == "queued"
    assert answer["has_callbacks"] is bool(callbacks)
    assert answer["enqueue_time_ms"] > 0


@pytest.mark.parametrize(
    "value, carried",
    [
        (NOON, "2024-02-29T12:00:01.005000+00:00"), (NOON.date(), "2024-02-29"), (dt.time(9, 30), "09:30:00"),
        (ID, str(ID)),
        (decimal.Decimal("1.10"), "1.10"), (Colour.RED, "red"), ({3}, [3]), (frozenset({"a"}), ["a"]),
        (b"\xff\x00", "/wA="), ((1, 2), [1, 2]), (Point(1, NOON.date()), {"x": 1, "at": "2024-02-29"}),
        (Order(id=ID, price=decimal.Decimal("9.9")), {"id": str(ID), "price": "9.9"}), ({ID: 1}, {str(ID): 1}),
        (2**70, 2**70), (1.5e300, 1.5e300), ("ünï\u2028\x00", "ünï\u2028\x00"), ([None, True], [None, True]),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "wrap", [lambda value: {"v": value}, lambda value: {"deep": [{"v": value}]}], ids=["flat", "deep"]
)
def test_a_type_that_json_lacks_is_converted(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis, value: Any, carried: Any, wrap: Callable[[Any], Any]
) -> None:
    queue.enqueue(wrap(value), handle)
    (item,) = documents(raw, config.get_queue_key("handle"))
    assert item["entity"] == wrap(carried)


def cycle() -> list[Any]:
    """A list that contains itself."""
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value",
    [object(), 1j, float("nan"), float("-inf"), "\ud800", handle, cycle(), {(1, 2): 3}, range(3)],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_raises_names_the_path_and_writes_nothing(
    prefix: str, queue: QueueManager, raw: redis.Redis, value: Any
) -> None:
    with pytest.raises(UnserializableError, match=re.escape("entity.items[1]")):
        queue.enqueue({"items": [0, value]}, handle)
    with pytest.raises(UnserializableError, match=re.escape("entities[2].items[1]")):
        queue.enqueue_batch([{}, {}, {"items": [0, value]}], handle)
    assert list(raw.scan_iter(f"{prefix}*")) == []


def test_the_custom_serializer_is_asked_only_for_what_is_left(
    config: QueueConfig, queue: QueueManager, raw: redis.Redis
) -> None:
    asked: list[Any] = []

    def serialize(value: Any) -> Any:
        asked.append(value)
        return {"real": value.real, "at": NOON}

    queue.enqueue({"a": 1j, "b": ID}, handle, custom_serializer=serialize)
    (item,) = documents(raw, config.get_queue_key("handle"))
    assert item["entity"] == {"a": {"real": 0.0, "at": NOON.isoformat()}, "b": str(ID)}
    assert asked == [1j]


@pytest.mark.parametrize(
    "field, arguments",
    [
        ("processor", {"processor": 5}), ("processor", {"processor": "no name"}), ("priority", {"priority": "urgent"}),
        ("queue_name", {"queue_name": "a b"}), ("operation_id", {"operation_id": ""}),
        ("operation_id", {"operation_id": 'a"b'}), ("deduplication_key", {"deduplication_key": "a\nb"}),
        ("timeout", {"timeout": 0}), ("timeout", {"timeout": "soon"}), ("delay", {"delay": -1}),
        ("on_success", {"on_success": 5}), ("on_failure", {"on_failure": ""}),
        ("retry_config", {"retry_config": {"max_attempts": 3}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("batch", [False, True])
def test_a_wrong_argument_is_refused_by_name_and_writes_nothing(
    prefix: str, queue: QueueManager, raw: redis.Redis, field: str, arguments: dict[str, Any], batch: bool
) -> None:
    arguments = {"processor": handle, **arguments}
    if batch:
        arguments |= {name: [arguments[name]] for name in ("operation_id", "deduplication_key") if name in arguments}
    with pytest.raises(InvalidInputError) as caught:
        queue.enqueue_batch([{}], **arguments) if batch else queue.enqueue({}, **arguments)
    assert caught.value.field.partition("[")[0] == field
    assert list(raw.scan_iter(f"{prefix}*")) == []


def test_without_a_key_nothing_is_deduplicated(queue: QueueManager) -> None:
    first, second = queue.enqueue({"n": 1}, handle), queue.enqueue({"n": 1}, handle)
    assert first["status"] == second["status"] == "queued"
    assert first["operation_id"] != second["operation_id"]


async def test_a_key_stays_taken_while_its_operation_is_live(
    config: QueueConfig, queue: QueueManager, inbox: Inbox
) -> None:
    config.register_callback(inbox.put, name="note")
    first = queue.enqueue({"n": 1}, "note", deduplication_key="order-1")
    again = queue.enqueue({"n": 2}, "note", deduplication_key="order-1")
    other = queue.enqueue({"n": 3}, "note", deduplication_key="order-2")
    assert (again["status"], again["operation_id"]) == ("duplicate", first["operation_id"])
    assert other["status"] == "queued"
    async with running(QueueWorker(config)):
        assert [entity["n"] for entity in await inbox.take(2)] == [1, 3]
    assert queue.enqueue({"n": 4}, "note", deduplication_key="order-1")["status"] == "queued"
    queue.purge_queue("note")
    assert queue.enqueue({"n": 5}, "note", deduplication_key="order-1")["status"] == "queued"


def test_a_known_operation_id_adds_nothing(queue: QueueManager) -> None:
    assert queue.enqueue({}, handle, operation_id="order-1")["status"] == "queued"
    again = queue.enqueue({}, handle, operation_id="order-1")
    assert (again["status"], again["operation_id"]) == ("duplicate", "order-1")
    assert queue.get_queue_status()["total_items"] == 1


def test_a_batch_takes_one_script_call_per_thousand(start_server: StartServer) -> None:
    server = start_server()
    queue = QueueManager(config=QueueConfig(redis_url=server.url))
    with server.client() as bare:
        assert len(queue.enqueue_batch([{}] * 2500, handle)) == 2500
        stats: Any = bare.info("commandstats")
        assert bare.llen("queue:normal:handle") == 2500
    scripts = [stats.get(f"cmdstat_{name}", {"calls": 0, "failed_calls": 0}) for name in ("eval", "evalsha")]
    assert sum(stat["calls"] - stat["failed_calls"] for stat in scripts) == 3


def test_bad_input_anywhere_in_a_batch_enqueues_nothing(queue: QueueManager) -> None:
    with pytest.raises(UnserializableError, match=re.escape("entities[1500]")):
        queue.enqueue_batch([{}] * 1500 + [{"v": object()}], handle)
    assert queue.get_queue_status()["total_items"] == 0


def test_ids_and_keys_of_a_batch_are_lists_of_equal_length(queue: QueueManager) -> None:
    ids, keys = ["a", "b"], ["x", "x"]
    answers = queue.enqueue_batch([{}, {}], handle, operation_id=ids, deduplication_key=keys)
    assert [(answer["operation_id"], answer["status"]) for answer in answers] == [("a", "queued"), ("a", "duplicate")]
    for field in ("operation_id", "deduplication_key"):
        for wrong in ("ab", ["a"], ["a", "b", "c"]):
            with pytest.raises(InvalidInputError, match=field):
                queue.enqueue_batch([{}, {}], handle, **{field: wrong})
    assert queue.enqueue_batch([], handle) == []


def test_a_processor_by_string_is_not_resolved_and_names_the_queue(config: QueueConfig, queue: QueueManager) -> None:
    assert queue.enqueue({}, "no.such.module.send_mail")["status"] == "queued"
    assert queue.get_queue_status()[config.get_queue_key("send_mail")] == 1


async def test_two_closures_of_one_name_stay_apart(config: QueueConfig, queue: QueueManager, inbox: Inbox) -> None:

    def make(number: int) -> Callable[[Any], None]:
        def closure(entity: Any) -> None:
            inbox.put((number, entity["n"]))

        return closure

    queue.enqueue({"n": 1}, make(1))
    queue.enqueue({"n": 2}, make(2))
    async with running(QueueWorker(config)):
        assert sorted(await inbox.take(2)) == [(1, 1), (2, 2)]


async def test_a_reloaded_function_replaces_the_one_of_its_name(
    config: QueueConfig, queue: QueueManager, import_source: Callable[[str], ModuleType], inbox: Inbox
) -> None:
    module = import_source("note = print\ndef work(entity):\n    return 1\n")
    config.register_callback(inbox.put, name="note")
    queue.enqueue({}, module.work, on_success="note")
    exec("def work(entity):\n    return 2\n", vars(module))  # noqa: S102 - what a reload does
    queue.enqueue({}, module.work, on_success="note")
    async with running(QueueWorker(config)):
        assert [data["result"] for data in await inbox.take(2)] == [2, 2]
