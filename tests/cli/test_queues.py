"""`enqueue`, `status`, `operation` and `purge` on a real server, and what their exit codes tell."""

from __future__ import annotations

import asyncio
import inspect
import io
import shlex
from dataclasses import fields
from typing import Any

import pytest
import redis
from rich.console import Console

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.cli.enqueue import Options
from queue_system.cli.status import Board
from queue_system.inspection.fleet import read_fleet
from tests.cli.support import RunCli, RunProgram
from tests.kit.waiting import eventually
from tests.kit.workers import running


def test_enqueue_prints_the_id(cli: RunCli, queue: QueueManager) -> None:
    answer = cli("enqueue", "shop.send_mail", '{"to": "ada"}', "--operation-id", "m-1", "--priority", "high")
    assert (answer.code, answer.out, answer.err) == (0, "queued m-1\n", "")
    record = queue.get_operation("m-1")
    assert record is not None
    assert (record.status, record.queue, record.priority) == ("queued", "send_mail", "high")


def test_enqueue_takes_all_its_options(cli: RunCli, queue: QueueManager, client: redis.Redis, prefix: str) -> None:
    options = "--queue mails --delay 2h --timeout 500ms --max-attempts 2 --deduplication-key k --on-success shop.told"
    answer = cli("enqueue", "shop.send_mail", "-", *options.split(), "--on-failure", "shop.told", "--json", stdin="[1]")
    assert answer.document["status"] == "queued"
    assert answer.document["has_callbacks"] is True
    delayed: Any = client.zrange(f"{prefix}delayed", 0, 0, withscores=True)
    ((member, due_ms),) = delayed
    now: Any = client.time()
    assert 7100 < due_ms / 1000 - now[0] < 7300
    for part in (b"normal:mails", b'"entity":[1]', b'"timeout":0.5', b'"max_attempts":2', b'"on_success":"told"'):
        assert part in member
    again = cli("enqueue", "shop.send_mail", "1", "--deduplication-key", "k", "--json")
    assert (again.code, again.document["status"]) == (0, "duplicate")


def test_enqueue_takes_the_retries_the_durability_and_the_life_of_the_record(
    cli: RunCli, queue: QueueManager, client: redis.Redis, prefix: str
) -> None:
    options = "--retry-delays 500ms,10s,2m --retry-timeout 1h --result-ttl 1d --durability fsync --operation-id m-1"
    assert cli("enqueue", "shop.send_mail", "{}", *options.split()).out == "queued m-1\n"
    items: Any = client.lrange(f"{prefix}normal:send_mail", 0, -1)
    (item,) = items
    for part in (b'"delays":[0.5,10.0,120.0]', b'"retry_timeout":3600.0', b'"result_ttl":86400.0'):
        assert part in item
    assert b'"max_attempts"' not in item, "still the default"
    refused = cli("enqueue", "shop.send_mail", "{}", "--durability", "replicated")
    assert (refused.code, "it needs a replica that is connected" in refused.err) == (2, True)


def test_the_command_line_has_every_keyword_of_enqueue() -> None:
    """But `custom_serializer`: what is typed is JSON already."""
    options = {each.name for each in fields(Options)} | {"queue_name", "retry_config"}
    assert {"max_attempts", "retry_delays", "retry_timeout"} < options
    keywords = set(inspect.signature(QueueManager.enqueue).parameters) - {"self", "entity", "processor"}
    assert keywords - options == {"custom_serializer"}


@pytest.mark.parametrize(
    "arguments, named",
    [
        ("shop.send_mail '{broken'", "entity: expected a JSON document, got other text"),
        ("shop.send_mail NaN", "entity"),
        ("'send mail' {}", "processor"),
        ("shop.send_mail {} --delay soon", "--delay: expected a length of time, got 'soon'; use seconds, or 500ms"),
        (
            "shop.send_mail {} --priority urgent",
            "--priority: expected one of 'high', 'normal', 'low'; got 'urgent'; see 'queue-system enqueue --help'",
        ),
        (
            "shop.send_mail {} --retry-delays 1s,,2s",
            "--retry-delays: expected a length of time, got ''; use seconds, or 500ms",
        ),
        ("shop.send_mail {} --durability sure", "--durability: expected one of 'fast', 'fsync',"),
        ("shop.send_mail {} --result-ttl -1", "--result-ttl: expected a length of time"),
        ("shop.send_mail {} --max-attempts abc", "--max-attempts: expected a whole number of at least 1, got 'abc'"),
        ("shop.send_mail {} --max-attempts 0", "--max-attempts: expected a whole number of at least 1, got '0'"),
        ("shop.send_mail {} --queue 'a b'", "queue_name"),
    ],
)
def test_a_wrong_value_is_named_on_one_line(cli: RunCli, arguments: str, named: str) -> None:
    answer = cli("enqueue", *shlex.split(arguments))
    assert (answer.code, answer.out) == (2, "")
    assert named in answer.err
    assert len(answer.err.splitlines()) == 1
    assert cli("status", "--json").document["queues"] == []


@pytest.mark.parametrize("document", [b'{"name": "\xff"}', b"[" * 100_000], ids=["bad-utf-8", "deep"])
def test_a_document_that_cannot_be_read_is_told_on_one_line(cli: RunCli, document: bytes) -> None:
    answer = cli("enqueue", "shop.send_mail", "-", stdin=document)
    assert (answer.code, answer.out) == (2, "")
    assert "entity: expected a JSON document, got other text" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_status_shows_queues_by_what_waits(cli: RunCli, queue: QueueManager, prefix: str) -> None:
    queue.enqueue_batch([{}] * 1200, "shop.report", priority="low")
    queue.enqueue({}, "shop.send_mail", priority="high")
    queue.enqueue({}, "shop.send_mail", delay=60)
    document = cli("status", "--json").document
    assert document["prefix"] == prefix
    assert [queue.pop("oldest_age_s") < 60 for queue in document["queues"]] == [True, True]
    assert document["queues"] == [
        {"queue": "report", "high": 0, "normal": 0, "low": 1200, "waiting": 1200},
        {"queue": "send_mail", "high": 1, "normal": 0, "low": 0, "waiting": 1},
    ]
    figures = {
        name: document[name] for name in ("waiting", "delayed", "running", "workers", "failures", "system_errors")
    }
    assert figures == {"waiting": 1201, "delayed": 1, "running": 0, "workers": 0, "failures": 0, "system_errors": 0}
    assert (document["metrics"], document["rates"]) == ({"enqueued": 1202}, None)
    text = cli("status").out
    assert "1,200" in text
    assert text.index("report") < text.index("send_mail")


def test_operation_show(cli: RunCli, queue: QueueManager) -> None:
    queue.enqueue({"to": "ada"}, "shop.send_mail", operation_id="m-1")
    answer = cli("operation", "show", "m-1", "--json")
    assert answer.code == 0
    assert (answer.document["status"], answer.document["finished"]) == ("queued", False)
    assert "normal:send_mail" in cli("operation", "show", "m-1").out
    unknown = cli("operation", "show", "m-2")
    assert (unknown.code, unknown.out) == (1, "")
    assert "'m-2'" in unknown.err


async def test_operation_wait_tells_the_outcome_by_its_exit_code(
    cli: RunCli, queue: QueueManager, config: QueueConfig
) -> None:
    def work(entity: dict[str, bool]) -> list[int]:
        if entity["fails"]:
            raise ValueError("out of stock")
        return [1, 2]

    once = QueueRetryConfig(max_attempts=1)
    for name, fails in (("good", False), ("bad", True)):
        queue.enqueue({"fails": fails}, work, operation_id=name, retry_config=once)
    late = cli("operation", "wait", "good", "--timeout", "10ms")
    assert (late.code, late.out) == (5, "")
    assert "'good' is queued" in late.err
    async with running(QueueWorker(config)):
        await queue.await_for("good")
        await queue.await_for("bad")
    good = cli("operation", "wait", "good", "--json")
    assert (good.code, good.document["result"]) == (0, [1, 2])
    bad = cli("operation", "wait", "bad")
    assert bad.code == 1
    assert "out of stock" in bad.out
    assert "ValueError" in bad.out
    assert cli("operation", "show", "bad").code == 0
    assert cli("operation", "wait", "unknown").code == 1


async def test_operation_wait_ends_with_the_operation(
    program: RunProgram, queue: QueueManager, config: QueueConfig, client: redis.Redis, prefix: str
) -> None:
    """It does not wait until its time is over."""
    queue.enqueue({}, lambda entity: "sent", operation_id="m-1")
    waiting = asyncio.create_task(asyncio.to_thread(program, "operation", "wait", "m-1", "--timeout", "1h", "--json"))
    await eventually(lambda: client.zcard(f"{prefix}waiters"), "the program waits")
    async with running(QueueWorker(config)):
        answer = await waiting
    assert (answer.code, answer.document["result"], answer.err) == (0, "sent", "")


def test_purge_removes_what_waits_in_the_named_queues_only(cli: RunCli, queue: QueueManager) -> None:
    for name in ("mails", "reports", "other"):
        for priority in ("high", "low"):
            queue.enqueue({}, "shop.work", queue_name=name, priority=priority)
    queue.enqueue({}, "shop.work", queue_name="mails", delay=60)
    answer = cli("purge", "mails", "reports", "--priority", "high", "--yes", "--json")
    assert answer.document == {"removed": {"high:mails": 1, "high:reports": 1}, "total": 2}
    answer = cli("purge", "mails", "-y")
    assert (answer.code, answer.out) == (0, "removed 2 operations from mails\n")
    assert cli("status", "--json").document["waiting"] == 3


def test_purge_never_acts_unasked(cli: RunCli, queue: QueueManager) -> None:
    queue.enqueue({}, "shop.work")
    answer = cli("purge", "work")
    assert (answer.code, answer.out) == (2, "")
    assert "--yes" in answer.err
    assert cli("status", "--json").document["waiting"] == 1
    assert cli("purge", "work", env={"QUEUE_SYSTEM_PURGE_YES": "1"}).code == 0


def test_the_question_before_a_purge_tells_how_many_wait_and_how_many_are_delayed(
    cli: RunCli, queue: QueueManager
) -> None:
    """Of the named queues and the priority only."""
    queue.enqueue_batch([{}] * 2, "shop.work")
    for name, priority in (("work", "normal"), ("work", "normal"), ("work", "high"), ("other", "normal")):
        queue.enqueue({}, "shop.work", queue_name=name, priority=priority, delay=60)
    assert "Remove 2 waiting operations from work, and 3 delayed ones?" in cli("purge", "work").err
    asked = cli("purge", "work", "other", "--priority", "high").err
    assert "Remove 0 waiting operations of priority high from work, other, and 1 delayed one?" in asked
    assert cli("purge", "work", "--yes", "--json").document["total"] == 5


async def test_status_tells_which_queue_workers_leave_alone_and_why(
    cli: RunCli, queue: QueueManager, config: QueueConfig
) -> None:
    queue.enqueue_batch([{}] * 40, "shop.lacking.charge")
    async with running(QueueWorker(config)):
        await eventually(lambda: "resting" in queue.get_queue_status(), "the queue is left alone", 20)
        shown = cli("status").out
        document = cli("status", "--json").document
    assert "charge: left alone by 1 worker: shop.lacking.charge" in " ".join(shown.split())
    (rest,) = document["resting"]["charge"]
    assert rest["queue"] == "charge"


def test_status_tells_which_dead_letters_are_full(config: QueueConfig, client: redis.Redis) -> None:
    board = Board("server", config.queue_prefix, most_dead_letters=2)
    client.lpush(config.system_errors_queue, b"a", b"b")
    client.lpush(config.failures_queue, b"a")
    board.update(read_fleet(config))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(board.view())
    shown = console.export_text()
    assert "system_errors is full: 2 dead letters of 2; what cannot be resolved stays in its queue; retry" in shown
    assert board.document()["full"] == {"system_errors": 2}
    assert "failures is full" not in shown
