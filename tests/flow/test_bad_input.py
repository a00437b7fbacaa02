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
    QueueSystemError,
    QueueWorker,
    UnserializableError,
)
from tests.kit.configs import MakeConfig
from tests.kit.contents import key_space
from tests.kit.logs import LineLogger
from tests.kit.operations import process

HUGE = 10**400
CYCLE: dict[str, Any] = {}
CYCLE["self"] = [CYCLE]


Named = enum.Enum("Named", {"HIGH": "high", "MAILS": "mails", "ID": "id-1"}, type=str)


class Opaque:
    """JSON cannot carry it."""


def each(values: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    """Every field with each of its values."""
    return [(field, value) for field, of_field in values.items() for value in of_field]


def shown(value: object) -> str:
    """The id of a case."""
    if isinstance(value, int) and value > HUGE:
        return "too long to be printed"
    return value if isinstance(value, str) and value.isidentifier() else repr(value)[:40]


NO_NUMBERS = [math.nan, math.inf, HUGE, 10**5000, True, "5"]
BAD_ARGUMENTS: dict[str, list[Any]] = {
    "priority": ["urgent", "HIGH", None, 1],
    "queue_name": ["mail box", "a:b", "", "x" * 129, "é", 5],
    "processor": [None, 5, "", "not a name", "a..b", ["module.function"], functools.partial(process)],
    "on_success": [5, "not a name", functools.partial(process)],
    "on_failure": [..., "a-b"],
    "timeout": [0, -1, *NO_NUMBERS],
    "delay": [-0.001, 1e10, None, *NO_NUMBERS],
    "retry_config": [{"max_attempts": 3}, 3],
    "custom_serializer": [5],
    "result_ttl": [-1, 1e10, *NO_NUMBERS],
    "durability": ["sure", "", 1, True, ["fast"]],
}
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
@pytest.mark.parametrize("field, value", each(BAD_ARGUMENTS), ids=shown)
@pytest.mark.parametrize("batch", [False, True])
def test_a_bad_argument_is_named_and_nothing_is_written(
    queue: QueueManager, field: str, value: Any, batch: bool
) -> None:
    options = {"processor": process, field: value}
    with named(field) as caught:
        if batch:
            queue.enqueue_batch([{"n": 1}, {"n": 2}], **options)
        else:
            queue.enqueue({"n": 1}, **options)
    assert caught.value.field == field
    assert isinstance(caught.value, QueueSystemError)


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
@pytest.mark.parametrize("position", [0, 1500, 2499])
def test_one_bad_member_of_a_batch_means_that_none_is_queued(
    queue: QueueManager, path: str, entity: Any, position: int
) -> None:
    """Also when it comes after more items than one script call takes. Its path is told, as that of a single one."""
    with pytest.raises(UnserializableError) as caught:
        queue.enqueue(entity, process)
    assert caught.value.field == f"entity{path}"
    entities = [{"n": n} for n in range(2500)]
    entities[position] = entity
    with pytest.raises(UnserializableError) as caught:
        queue.enqueue_batch(entities, process)
    assert caught.value.field == f"entities[{position}]{path}"


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
@pytest.mark.parametrize("entities", [{"n": 1}, "text", None, iter([{}])])
def test_what_is_no_list_of_entities_is_refused(queue: QueueManager, entities: Any) -> None:
    with named("entities"):
        queue.enqueue_batch(entities, process)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "field, value",
    each({"operation_id": [["a"], "ab", 5], "deduplication_key": [["a", "b", "c"]], "colour": ["red"]}),
    ids=shown,
)
def test_what_a_batch_cannot_share_out_is_refused(queue: QueueManager, field: str, value: Any) -> None:
    with named(field):
        queue.enqueue_batch([{}, {}], process, **{field: value})


@pytest.mark.usefixtures("unchanged")
def test_an_id_twice_in_one_batch_is_refused(queue: QueueManager) -> None:
    with named(r"operation_id\[2\]"):
        queue.enqueue_batch([{}, {}, {}], process, operation_id=["same", "other", "same"])


BAD_SETTINGS: dict[str, list[Any]] = {
    "redis_client": ["redis://localhost", ...],
    "redis_url": ["http://localhost", 5],
    "queue_prefix": ["", "a b", None],
    "durability": ["sure", "", 1, True],
    "allowed_modules": ["shop.jobs", [5]],
    "backup_ttl": [0, -1, 10**17, *NO_NUMBERS],
    "connection_timeout": [0, -1, 10**17, *NO_NUMBERS],
    "lease_seconds": [0, -1, 10**17, *NO_NUMBERS],
    "dedup_ttl": [0, -1, 10**17, *NO_NUMBERS],
    "result_ttl": [-1, 10**17, *NO_NUMBERS],
    "max_connection_retries": [-1, 1.5, 10**17, *NO_NUMBERS],
    "max_item_bytes": [0, -1, 1.5, 10**17, *NO_NUMBERS],
    "max_dead_letters": [0, -1, 1.5, 10**17, *NO_NUMBERS],
}
BAD_WORKERS: dict[str, list[Any]] = {
    "config": [None, "redis://localhost"],
    "max_workers": [0, 10**9, 1.5, 2.0, True, "5", math.nan],
    "work_timeout": [0, -1, *NO_NUMBERS],
    "queues": [["a b"], [5], "mail"],
}
BAD_CHOICES: dict[str, list[Any]] = {
    "source": ["successes"],
    "limit": [0, 1001, True, 1.0, "1"],
    "cursor": ["x", "-1", 3],
    "letter_ids": ["abc", 5, [["abc"]]],
    "queue": [1],
    "min_age": [-1, math.nan],
    "max_age": ["1", True],
    "error": [b"x"],
}


@pytest.mark.parametrize("field, value", each(BAD_SETTINGS), ids=shown)
def test_a_bad_setting_is_named(field: str, value: Any) -> None:
    settings: dict[str, Any] = {"redis_url": "redis://localhost:1", field: value}
    with named(field) as caught:
        QueueConfig(**settings)
    assert caught.value.field == field


@pytest.mark.parametrize("field, value", each(BAD_WORKERS), ids=shown)
def test_a_bad_argument_of_a_worker_is_named(config: QueueConfig, field: str, value: Any) -> None:
    with named(field) as caught:
        QueueWorker(**{"config": config, field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("field, value", each(BAD_CHOICES), ids=shown)
def test_a_bad_choice_of_dead_letters_is_named(queue: QueueManager, field: str, value: Any) -> None:
    calls: list[Callable[..., Any]] = [queue.list_dead_letters, queue.retry_dead_letters, queue.drop_dead_letters]
    for call in calls[:1] if field in {"limit", "cursor"} else calls:
        with named(field):
            call(**{field: value})


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


def test_a_refused_call_is_logged_once_with_its_field(queue: QueueManager, log: LineLogger) -> None:
    with named("priority"):
        queue.enqueue({}, process, priority="urgent")
    (line,) = log.of("call failed")
    assert line["error_type"] == "InvalidInputError"
    assert line["error"].startswith("priority: ")
