"""`dead-letters` on a real server: list, show, retry and drop, each only what was named."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from tests.cli.support import PROGRAM, RunCli, clean_environment
from tests.cli.terminal import Terminal
from tests.kit.waiting import eventually
from tests.kit.workers import running

ONCE = QueueRetryConfig(max_attempts=1)


async def fail(config: QueueConfig, *entities: Any, queue_name: str = "work") -> None:
    """Let operations fail for good; an entity is the text of its error as well."""

    def work(entity: object) -> None:
        raise ValueError(str(entity))

    manager = QueueManager(config)
    manager.enqueue_batch(list(entities), work, queue_name=queue_name, retry_config=ONCE)
    before = manager.get_queue_status()[config.failures_queue]
    async with running(QueueWorker(config, 1)):
        await eventually(
            lambda: manager.get_queue_status()[config.failures_queue] == before + len(entities), "all failed"
        )


def listed(cli: RunCli, *arguments: str) -> list[dict[str, Any]]:
    dead_letters: list[dict[str, Any]] = cli("dead-letters", "list", "--json", *arguments).document["letters"]
    return dead_letters


async def test_list_pages_and_filters(cli: RunCli, config: QueueConfig) -> None:
    await fail(config, "out of stock", "no address")
    await fail(config, "out of stock", queue_name="other")
    assert [dead_letter["queue"] for dead_letter in listed(cli)] == ["other", "work", "work"]
    assert len(listed(cli, "--error", "stock")) == 2
    assert len(listed(cli, "--error", "stock", "--queue", "other")) == 1
    assert len(listed(cli, "--min-age", "1h")) == 0
    assert len(listed(cli, "--max-age", "1h")) == 3
    first = cli("dead-letters", "list", "--json", "--limit", "2").document
    rest = cli("dead-letters", "list", "--json", "--limit", "2", "--cursor", first["cursor"]).document
    assert len({dead_letter["letter_id"] for dead_letter in first["letters"] + rest["letters"]}) == 3
    assert rest["cursor"] == ""
    text = cli("dead-letters", "list", "--limit", "2").out
    assert f"more: --cursor {first['cursor']}" in text
    assert "no dead letters" in cli("dead-letters", "list", "--source", "system_errors").out


def test_showing_a_dead_letter_costs_what_is_shown(cli: RunCli, config: QueueConfig, client: redis.Redis) -> None:
    """Indented as a whole, this one would be 135 MB. As JSON it is whole, and little longer than it was."""
    entity = [1] * 150_000
    for _ in range(450):
        entity = [entity]  # type: ignore[list-item]
    client.lpush(config.failures_queue, json.dumps({"operation_id": "deep", "entity": entity}))
    (dead_letter,) = listed(cli)
    text = cli("dead-letters", "show", dead_letter["letter_id"])
    assert (text.code, len(text.out) < 100_000) == (0, True)
    assert "--json prints the whole" in text.out
    whole = cli("dead-letters", "show", dead_letter["letter_id"], "--json")
    assert len(whole.out) < 1_000_000
    assert whole.document["item"]["entity"] == entity


async def test_show_tells_all_of_a_dead_letter(cli: RunCli, config: QueueConfig) -> None:
    await fail(config, {"to": "ada"})
    (dead_letter,) = listed(cli)
    shown = cli("dead-letters", "show", dead_letter["letter_id"], "--json").document
    assert shown["item"]["entity"] == {"to": "ada"}
    assert "ada" in cli("dead-letters", "show", dead_letter["letter_id"]).out
    missing = cli("dead-letters", "show", "0000")
    assert (missing.code, missing.out) == (1, "")
    assert "'0000'" in missing.err


async def test_retry_puts_back_what_is_named(cli: RunCli, config: QueueConfig, queue: QueueManager) -> None:
    await fail(config, 1, 2, 3)
    dead_letters = listed(cli)
    answer = cli("dead-letters", "retry", dead_letters[0]["letter_id"], "--json")
    assert (answer.code, answer.document) == (0, {"retried": 1})
    assert cli("dead-letters", "retry", "--queue", "nowhere").out == "0 operations will run again\n"
    assert cli("dead-letters", "retry", "--all").out == "2 operations will run again\n"
    record = queue.get_operation(dead_letters[0]["operation_id"])
    assert record is not None
    assert (record.status, record.attempts) == ("queued", 0)


async def test_drop_deletes_what_is_named_after_asking_with_the_number_that_match(
    cli: RunCli, config: QueueConfig
) -> None:
    await fail(config, "out of stock", "no address", "out of stock")
    for choice, number in ((["--all"], 3), (["--error", "stock"], 2)):
        asked = cli("dead-letters", "drop", *choice)
        assert (asked.code, asked.out) == (2, "")
        assert f"Delete {number} dead letters of the 3 in failures for good?" in asked.err
    assert len(listed(cli)) == 3
    dead_letter = listed(cli)[0]["letter_id"]
    assert cli("dead-letters", "drop", dead_letter, "--yes", "--json").document == {"dropped": 1}
    assert cli("dead-letters", "drop", "--all", "-y").out == "dropped 2 dead letters\n"


@pytest.mark.parametrize("verb", ["retry", "drop"])
async def test_nothing_named_is_not_everything(cli: RunCli, config: QueueConfig, verb: str) -> None:
    await fail(config, 1)
    answer = cli("dead-letters", verb, *(["--yes"] if verb == "drop" else []))
    assert (answer.code, answer.out) == (2, "")
    assert "--all" in answer.err
    assert len(listed(cli)) == 1


async def test_a_long_call_shows_how_far_it_is(config: QueueConfig, client: redis.Redis, place: dict[str, str]) -> None:
    await fail(config, "again")
    dead_letters: Any = client.lrange(config.failures_queue, 0, 0)
    item = json.loads(dead_letters[0])
    copies = [json.dumps({**item, "operation_id": f"copy-{n}"}) for n in range(20_000)]
    client.lpush(config.failures_queue, *copies)
    with Terminal([*PROGRAM, "dead-letters", "retry", "--all"], clean_environment(**place)) as terminal:
        assert terminal.wait() == 0
    assert b"retrying" in terminal.seen
    assert b"/20001" in terminal.seen
    assert b"20,001 operations will run again" in terminal.seen


async def test_show_tells_where_it_failed_line_by_line(cli: RunCli, config: QueueConfig) -> None:
    await fail(config, "out\nof stock")
    (dead_letter,) = listed(cli)
    shown = cli("dead-letters", "show", dead_letter["letter_id"]).out
    assert "    raise ValueError(str(entity)) " in shown
    assert "ValueError: out " in shown
    assert dead_letter["traceback"].startswith("Traceback (most recent call last):\n")
    record = cli("operation", "show", dead_letter["operation_id"]).out
    assert "    raise ValueError(str(entity)) " in record


async def test_retry_without_the_keys_says_that_signed_dead_letters_stay(
    cli: RunCli, config: QueueConfig, client: redis.Redis
) -> None:
    signed = QueueConfig(redis_url=config.redis_url, queue_prefix=config.queue_prefix, signing_keys={"k": "k" * 16})
    await fail(signed, "boom")
    answer = cli("dead-letters", "retry", "--all")
    assert answer.code == 2
    assert answer.err.startswith("Error: signing_keys: 1 of these dead letters are signed and stay")
    assert "--config" in answer.err
    assert client.llen(config.failures_queue) == 1
    signed.transport.close()
