"""Hostile items on their way through a worker: no line of the log is theirs, and their entities are in none."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueWorker
from tests.kit.configs import MakeConfig
from tests.kit.hostile_texts import CORPUS
from tests.kit.waiting import eventually
from tests.kit.workers import running

ENTITY = "never-in-a-log-line"
MESSAGES = {
    "worker started", "worker stopped", "operation runs again", "operation failed", "operation rejected",
    "where the attempt failed",
    "a blocking call holds up the event loop: await its async twin",  # what this test waits by
    "Queue metric update", "a list holds a foreign type and is skipped", "the server is not safe",
}  # fmt: skip


def explode(entity: dict[str, Any]) -> None:
    """Raise what the item says."""
    raise ValueError(entity["text"])


def answer(entity: dict[str, Any]) -> dict[str, Any]:
    """Succeed with what was given."""
    return {"answer": entity}


class Records(logging.StreamHandler[io.StringIO]):
    """What a console shows, and the messages and fields behind it."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(logging.Formatter("LINE %(levelname)s %(message)s"))
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        super().emit(record)


@pytest.fixture
def console() -> Records:
    return Records()


@pytest.fixture
def config(make_config: MakeConfig, console: Records) -> QueueConfig:
    """A configuration whose logger shows everything."""
    logger = logging.Logger("hostile", logging.DEBUG)  # noqa: LOG001 - outside the global tree
    logger.addHandler(console)
    config = make_config(logger=logger)
    config.register_callback(explode, "explode", "shop")
    config.register_callback(answer, "answer", "shop")
    return config


def items_with(text: str, number: int) -> list[bytes]:
    """Items that carry a text wherever one may stand."""
    entity = {"text": text, "secret": ENTITY}
    named = {"processor_module": "shop", "entity": entity, "max_attempts": 2, "delays": [0]}
    members: list[dict[str, Any]] = [
        {"operation_id": f"raises-{number}", "processor": "explode", **named},
        {"operation_id": f"calls-{number}", "processor": "answer", **named, "on_success": text},
        {"operation_id": text, "processor": "explode", **named},
        {"operation_id": text, "processor": text, "entity": entity},
        {"processor": text, "processor_module": text, "entity": entity},
        {"processor": "explode", **named, "deduplication_key": text, "nonce": text, text: text, "phase": text},
        {"processor": {text: ENTITY}, "attempts": text},
    ]
    return [*(json.dumps(each).encode() for each in members), text.encode(errors="surrogatepass")]


@pytest.mark.timeout(60)
async def test_a_hostile_item_writes_no_line_of_its_own_and_its_entity_is_in_none(
    config: QueueConfig, console: Records, client: redis.Redis, prefix: str
) -> None:
    queue, ready = QueueManager(config), f"{prefix}ready:normal"
    client.sadd(config.get_registry_key(), config.get_queue_key("hostile"))
    for number, text in enumerate(CORPUS.values()):
        items = items_with(text, number)
        client.lpush(config.get_queue_key("hostile"), *items)
        name = text.encode(errors="surrogatepass")
        foreign = f"{prefix}normal:".encode() + name
        client.set(foreign, "a foreign type") if number % 2 else client.lpush(foreign, *items)
        client.zadd(ready, {name: 0})

    def drained() -> bool:
        status = queue.get_queue_status()
        left = status["total_items"] + status[config.keys.delayed] + status[f"{prefix}running"]
        return bool(left == client.zcard(ready) == 0)

    async with running(QueueWorker(config, max_workers=50)):
        await eventually(drained, "every hostile item is settled", 40.0)

    shown = console.stream.getvalue().splitlines()
    assert all(line.isprintable() and len(line) < 5 * 2048 for line in shown)
    lines = [line for line in shown if not line.startswith("    ")]  # those of tracebacks are indented
    assert len(lines) == len(console.records)
    assert all(line.startswith("LINE ") for line in lines)
    assert {_message(line) for line in lines} <= MESSAGES
    assert any(line.startswith("LINE ERROR operation failed ") for line in lines)
    fields = [str(value) for record in console.records for name, value in vars(record).items() if name != "exc_text"]
    assert all(field.isprintable() and len(field) < 5 * 2048 for field in fields)
    assert ENTITY not in console.stream.getvalue() + "".join(fields)


def _message(line: str) -> str:
    """The constant words between the level and the first field."""
    words = line.split(" ")[2:]
    return " ".join(words[: next(number for number, word in enumerate(words) if "=" in word)])
