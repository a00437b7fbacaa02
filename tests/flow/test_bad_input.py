"""Bad input: a typed error that names the field, and not one byte written."""

from __future__ import annotations

import enum
import functools
import math
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest
import redis

from queue_system import (
    InvalidInputError,
    ItemTooLargeError,
    QueueConfig,
    QueueManager,
    QueueRetryConfig,
    QueueSystemError,
    QueueWorker,
    UnserializableError,
)
from tests.kit.configs import MakeConfig
from tests.kit.contents import key_space
from tests.kit.logs import LineLogger

HUGE = 10**400
CYCLE: dict[str, Any] = {}
CYCLE["self"] = [CYCLE]


async def process(entity: Any) -> Any:
    return entity


Named = enum.Enum("Named", {"HIGH": "high", "MAILS": "mails", "ID": "id-1"}, type=str)


class Opaque:
    """JSON cannot carry it."""


BAD_ARGUMENTS = [
    ("priority", {"priority": "urgent"}),
    ("priority", {"priority": "HIGH"}),
    ("priority", {"priority": None}),
    ("priority", {"priority": 1}),
    ("queue_name", {"queue_name": "mail box"}),
    ("queue_name", {"queue_name": "a:b"}),
    ("queue_name", {"queue_name": ""}),
    ("queue_name", {"queue_name": "x" * 129}),
    ("queue_name", {"queue_name": "é"}),
    ("queue_name", {"queue_name": 5}),
    ("processor", {"processor": None}),
    ("processor", {"processor": 5}),
    ("processor", {"processor": ""}),
    ("processor", {"processor": "not a name"}),
    ("processor", {"processor": "a..b"}),
    ("processor", {"processor": ["module.function"]}),
    ("processor", {"processor": functools.partial(process)}),
    ("on_success", {"on_success": 5}),
    ("on_success", {"on_success": "not a name"}),
    ("on_success", {"on_success": functools.partial(process)}),
    ("on_failure", {"on_failure": ...}),
    ("on_failure", {"on_failure": "a-b"}),
    ("timeout", {"timeout": 0}),
    ("timeout", {"timeout": -1}),
    ("timeout", {"timeout": math.nan}),
    ("timeout", {"timeout": math.inf}),
    ("timeout", {"timeout": "5"}),
    ("timeout", {"timeout": True}),
    ("timeout", {"timeout": HUGE}),
    ("delay", {"delay": -0.001}),
    ("delay", {"delay": math.nan}),
    ("delay", {"delay": math.inf}),
    ("delay", {"delay": 1e10}),
    ("delay", {"delay": HUGE}),
    ("delay", {"delay": "1"}),
    ("delay", {"delay": None}),
    ("delay", {"delay": True}),
    ("retry_config", {"retry_config": {"max_attempts": 3}}),
    ("retry_config", {"retry_config": 3}),
    ("custom_serializer", {"custom_serializer": 5}),
    ("result_ttl", {"result_ttl": -1}),
    ("result_ttl", {"result_ttl": True}),
    ("durability", {"durability": "sure"}),
    ("durability", {"durability": ["fast"]}),
]  # fmt: skip
BAD_IDENTIFIERS: list[Any] = ["", 'a"b', "a\\b", "a\nb", "\ud800", "x" * 257, 7]
BAD_ENTITIES = [
    ("", math.nan),
    (".a", {"a": math.inf}),
    (".items[1].price", {"items": [{"price": 1.5}, {"price": -math.inf}]}),
    (".name", {"name": "lone \ud800 surrogate"}),
    (".self[0]", CYCLE),
    (".a[0]", {"a": [Opaque()]}),
    (".a", {"a": deque([1])}),
    (".f", {"f": process}),
    (".a", {"a": {None: 1}}),
    (".n", {"n": 10**5000}),
]


@pytest.fixture
def unchanged(queue: QueueManager, client: redis.Redis, prefix: str) -> Any:
    """Tells at the end of a test whether the key space is what it was at its beginning: one operation waits."""
    queue.enqueue({"n": 0}, process, operation_id="before")
    before = key_space(client, prefix)
    yield
    assert key_space(client, prefix) == before
    assert queue.config.get_metrics()["enqueued"] == 1


def named(field: str) -> Any:
    """Expect an InvalidInputError, which is a QueueSystemError, about that field."""
    return pytest.raises(InvalidInputError, match=rf"^{field}: ")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("field, arguments", BAD_ARGUMENTS, ids=lambda value: repr(value)[:40] if value else None)
@pytest.mark.parametrize("batch", [False, True])
def test_a_bad_argument_is_named_and_nothing_is_written(
    queue: QueueManager, field: str, arguments: dict[str, Any], batch: bool
) -> None:
    options = {"processor": process, **arguments}
    with named(field) as caught:
        if batch:
            queue.enqueue_batch([{"n": 1}, {"n": 2}], **options)
        else:
            queue.enqueue({"n": 1}, **options)
    assert caught.value.field == field
    assert isinstance(caught.value, QueueSystemError)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("field", ["delay", "timeout"])
def test_a_number_too_long_to_be_printed_is_refused_too(queue: QueueManager, field: str) -> None:
    arguments: dict[str, Any] = {field: 10**5000}
    with named(field):
        queue.enqueue({}, process, **arguments)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("field", ["operation_id", "deduplication_key"])
@pytest.mark.parametrize("value", BAD_IDENTIFIERS)
def test_a_bad_identifier_is_named_and_nothing_is_written(queue: QueueManager, field: str, value: Any) -> None:
    arguments: dict[str, Any] = {field: value}
    with named(field):
        queue.enqueue({"n": 1}, process, **arguments)
    with named(rf"{field}\[1\]"):
        queue.enqueue_batch([{"n": 1}, {"n": 2}], process, **{field: ["good", value]})


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("path, entity", BAD_ENTITIES, ids=[path or "itself" for path, _ in BAD_ENTITIES])
def test_an_entity_that_json_cannot_carry_is_refused_with_its_path(queue: QueueManager, path: str, entity: Any) -> None:
    with pytest.raises(UnserializableError) as caught:
        queue.enqueue(entity, process)
    assert caught.value.field == f"entity{path}"


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("path, entity", BAD_ENTITIES, ids=[path or "itself" for path, _ in BAD_ENTITIES])
@pytest.mark.parametrize("position", [0, 1500, 2499])
def test_one_bad_member_of_a_batch_means_that_none_is_queued(
    queue: QueueManager, path: str, entity: Any, position: int
) -> None:
    """Also when it comes after more items than one script call takes."""
    entities = [{"n": n} for n in range(2500)]
    entities[position] = entity
    with pytest.raises(UnserializableError) as caught:
        queue.enqueue_batch(entities, process)
    assert caught.value.field == f"entities[{position}]{path}"


@pytest.mark.usefixtures("unchanged")
def test_a_custom_serializer_that_fails_is_reported_with_the_path(queue: QueueManager) -> None:
    def serializer(value: Any) -> Any:
        raise RuntimeError("no idea")

    with pytest.raises(UnserializableError, match=r"^entity\.a: custom_serializer raised RuntimeError: no idea"):
        queue.enqueue({"a": Opaque()}, process, custom_serializer=serializer)
    not_callable: Any = 5
    with pytest.raises(InvalidInputError):
        queue.enqueue({"a": Opaque()}, process, custom_serializer=not_callable)


@pytest.mark.usefixtures("unchanged")
def test_an_item_larger_than_a_mebibyte_is_refused(queue: QueueManager) -> None:
    assert queue.config.max_item_bytes == 1024 * 1024
    with pytest.raises(ItemTooLargeError, match=r"^entity: .* max_item_bytes") as caught:
        queue.enqueue({"blob": "x" * 1024 * 1024}, process)
    assert caught.value.field == "entity"
    with pytest.raises(ItemTooLargeError) as caught:
        queue.enqueue_batch([{"n": 1}, {"blob": "x" * 1024 * 1024}], process)
    assert caught.value.field == "entities[1]"


def test_the_largest_item_is_configurable_to_the_byte(make_config: MakeConfig, client: redis.Redis) -> None:
    generous = QueueManager(make_config())
    generous.enqueue({"a": "ä"}, process, operation_id="id")
    item: Any = client.lindex(generous.config.get_queue_key("process"), 0)
    exact = QueueManager(make_config(max_item_bytes=len(item) + 20))
    exact.enqueue({"a": "ä"}, process)
    with pytest.raises(ItemTooLargeError):
        QueueManager(make_config(max_item_bytes=len(item) - 40)).enqueue({"a": "ä"}, process)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "field, entities, arguments",
    [
        ("entities", {"n": 1}, {}),
        ("entities", "text", {}),
        ("entities", None, {}),
        ("entities", iter([{}]), {}),
        ("operation_id", [{}, {}], {"operation_id": ["a"]}),
        ("operation_id", [{}, {}], {"operation_id": "ab"}),
        ("operation_id", [{}], {"operation_id": 5}),
        ("deduplication_key", [{}], {"deduplication_key": ["a", "b"]}),
        ("colour", [{}], {"colour": "red"}),
    ],
)
def test_a_batch_of_the_wrong_form_is_refused(
    queue: QueueManager, field: str, entities: Any, arguments: dict[str, Any]
) -> None:
    with named(field):
        queue.enqueue_batch(entities, process, **arguments)


def test_an_id_twice_in_one_batch_is_refused_or_answered_as_a_duplicate(
    queue: QueueManager, client: redis.Redis
) -> None:
    """Nothing may be called queued that is not in Redis."""
    try:
        answers = queue.enqueue_batch([{"n": 1}, {"n": 2}], process, operation_id=["same", "same"])
    except InvalidInputError:
        answers = []
    assert [a["status"] for a in answers].count("queued") == client.llen(queue.config.get_queue_key("process"))


@pytest.mark.parametrize("value", [0, -1, HUGE, 1.5, True, "3", None], ids=lambda value: repr(value)[:30])
def test_a_bad_number_of_attempts_is_refused(value: Any) -> None:
    makers: list[Callable[[], QueueRetryConfig]] = [
        lambda: QueueRetryConfig(max_attempts=value),
        lambda: QueueRetryConfig.fixed(1.0, max_attempts=value),
        lambda: QueueRetryConfig.exponential(max_attempts=value),
    ]
    if value is not None:
        makers.append(lambda: QueueRetryConfig.custom([1.0], max_attempts=value))
    for make in makers:
        with named("max_attempts"):
            make()


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", True, HUGE], ids=lambda value: repr(value)[:30])
def test_bad_delays_and_timeouts_of_a_retry_are_refused(value: Any) -> None:
    with named("delay"):
        QueueRetryConfig.fixed(value)
    with named(r"delays\[1\]"):
        QueueRetryConfig.custom([1, value])
    with named("timeout"):
        QueueRetryConfig(timeout=value)


@pytest.mark.parametrize(
    "field, value",
    [
        ("redis_client", "redis://localhost"),
        ("redis_client", ...),
        ("redis_url", "http://localhost"),
        ("redis_url", 5),
        ("queue_prefix", ""),
        ("queue_prefix", "a b"),
        ("queue_prefix", None),
        ("backup_ttl", 0),
        ("backup_ttl", math.nan),
        ("backup_ttl", "week"),
        ("backup_ttl", HUGE),
        ("connection_timeout", 0),
        ("connection_timeout", -1),
        ("connection_timeout", math.inf),
        ("connection_timeout", math.nan),
        ("connection_timeout", "5"),
        ("max_connection_retries", -1),
        ("max_connection_retries", 1.5),
        ("max_connection_retries", True),
        ("lease_seconds", 0),
        ("lease_seconds", math.nan),
        ("result_ttl", -1),
        ("result_ttl", 1e18),
        ("dedup_ttl", 0),
        ("max_item_bytes", 0),
        ("max_item_bytes", 1.5),
        ("allowed_modules", "shop.jobs"),
        ("allowed_modules", [5]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_setting_is_named(field: str, value: Any) -> None:
    settings: dict[str, Any] = {"redis_url": "redis://localhost:1", field: value}
    with named(field) as caught:
        QueueConfig(**settings)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "field, arguments",
    [
        ("config", {"config": None}),
        ("config", {"config": "redis://localhost"}),
        ("max_workers", {"max_workers": 0}),
        ("max_workers", {"max_workers": True}),
        ("max_workers", {"max_workers": 2.0}),
        ("max_workers", {"max_workers": 2.5}),
        ("work_timeout", {"work_timeout": 0}),
        ("work_timeout", {"work_timeout": -1}),
        ("work_timeout", {"work_timeout": math.nan}),
        ("work_timeout", {"work_timeout": math.inf}),
        ("work_timeout", {"work_timeout": HUGE}),
        ("work_timeout", {"work_timeout": True}),
        ("work_timeout", {"work_timeout": "30"}),
        ("queues", {"queues": ["a b"]}),
        ("queues", {"queues": [5]}),
        ("queues", {"queues": "mail"}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_argument_of_a_worker_is_named(config: QueueConfig, field: str, arguments: dict[str, Any]) -> None:
    with named(field) as caught:
        QueueWorker(**{"config": config, **arguments})
    assert caught.value.field == field


def test_a_manager_needs_a_configuration() -> None:
    no_config: Any = "redis://localhost"
    with named("config"):
        QueueManager(no_config)


@pytest.mark.usefixtures("unchanged")
def test_a_bad_queue_is_not_purged_and_has_no_key(queue: QueueManager) -> None:
    for call in (queue.purge_queue, queue.config.get_queue_key):
        with named("queue_name"):
            call("a b")
        with named("priority"):
            call("process", "urgent")


def test_members_of_an_enum_are_taken_by_their_values(queue: QueueManager, client: redis.Redis) -> None:
    """Also where a member is formatted as `Name.URGENT`."""
    high, mails, operation_id = [cast("str", member) for member in Named]
    queue.enqueue({}, process, priority=high, queue_name=mails, operation_id=operation_id)
    queue.enqueue_batch([{}], process, priority=high, queue_name=mails, operation_id=["id-2"])
    assert client.llen(queue.config.get_queue_key("mails", "high")) == 2
    assert queue.get_operation("id-1") is not None
    assert queue.purge_queue(mails, high) == 2


@pytest.mark.parametrize(
    "field, arguments",
    [
        ("limit", {"limit": 0}),
        ("limit", {"limit": True}),
        ("limit", {"limit": 1.0}),
        ("cursor", {"cursor": "x"}),
        ("cursor", {"cursor": 5}),
        ("source", {"source": "other"}),
        ("letter_ids", {"letter_ids": "abc"}),
        ("letter_ids", {"letter_ids": 5}),
        ("letter_ids", {"letter_ids": [["abc"]]}),
        ("queue", {"queue": 5}),
        ("min_age", {"min_age": math.nan}),
        ("max_age", {"max_age": True}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_choice_of_dead_letters_is_named(queue: QueueManager, field: str, arguments: dict[str, Any]) -> None:
    with named(field):
        queue.list_dead_letters(**arguments)


@pytest.mark.parametrize("callback", [None, 5, "name"])
def test_what_is_not_callable_is_not_registered(config: QueueConfig, callback: Any) -> None:
    with named("callback"):
        config.register_callback(callback)


def test_a_refused_call_is_logged_once_with_its_field(queue: QueueManager, log: LineLogger) -> None:
    with named("priority"):
        queue.enqueue({}, process, priority="urgent")
    (line,) = log.of("call failed")
    assert line["error_type"] == "InvalidInputError"
    assert line["error"].startswith("priority: ")
