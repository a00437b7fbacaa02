"""An operator lists, retries and drops dead letters: each is chosen rightly, moves once, and is never lost."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.broker.protocol import Command
from queue_system.model.dead_letter import encode_dead_letter
from queue_system.model.operation import Operation, encode_item, encode_tail
from queue_system.testing.proxy import Proxy, Shape
from tests.kit.configs import MakeConfig
from tests.kit.contents import documents, next_letter, read_record
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.operations import ONCE
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import eventually, wait_until
from tests.kit.workers import first_letter, running

KEYS = {"2026": "a secret of the year 2026"}
Q = "normal:jobs"
OPERATOR = """
import sys
from queue_system import QueueConfig, QueueManager
url, prefix = sys.argv[1:]
print(QueueManager(QueueConfig(redis_url=url, queue_prefix=prefix)).retry_dead_letters())
"""


def item_of(operation_id: str, **members: Any) -> bytes:
    tail = encode_tail(Operation(**{"processor": "take", "processor_module": "shop", "attempts": 5, **members}))
    return encode_item(operation_id, b'{"n":1}', tail)


def add_dead_letter(
    config: QueueConfig,
    client: redis.Redis,
    *ids: str,
    source: str = "failures",
    queue: str = Q,
    at: float = 1.0,
    error: str = "boom",
    **members: Any,
) -> None:
    """Write letters as a worker does, the oldest first."""
    found = [encode_dead_letter(item_of(id_, **members), queue.encode(), error, "ValueError", at) for id_ in ids]
    for start in range(0, len(found), 1000):
        client.lpush(config.keys.prefix + source, *found[start : start + 1000])


def waiting(client: redis.Redis, config: QueueConfig, queue: str = Q) -> list[dict[str, Any]]:
    """The items that wait in a queue, the next one first."""
    return documents(client, config.keys.prefix + queue)[::-1]


def places(client: redis.Redis, config: QueueConfig) -> Counter[str]:
    """How often each operation is to be found among the failures and in the queue."""
    return Counter(
        each["operation_id"] for key in (Q, "failures") for each in documents(client, config.keys.prefix + key)
    )


def start_operator(url: str, prefix: str) -> subprocess.Popen[bytes]:
    """Retry all failures in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", OPERATOR, url, prefix], stdout=subprocess.PIPE)


async def test_what_failed_is_listed_retried_and_succeeds(
    queue: QueueManager, client: redis.Redis, inbox: Inbox, config: QueueConfig
) -> None:
    broken = True

    def work(entity: Any) -> str:
        if broken:
            raise ValueError("the mail server is away")
        inbox.put(entity)
        return "sent"

    queue.enqueue({"n": 1}, work, "jobs", "high", "op", QueueRetryConfig.fixed(0.0, max_attempts=2),
                  deduplication_key="k")  # fmt: skip
    async with running(QueueWorker(config)):
        await next_letter(client, config.failures_queue)
        page = await queue.alist_dead_letters()
        (letter,) = page.letters
        assert page.cursor == ""
        assert (letter.source, letter.operation_id, letter.queue, letter.priority) == ("failures", "op", "jobs", "high")
        assert letter.processor.endswith(".work")
        assert (letter.reason, letter.error_type, letter.attempts) == ("the mail server is away", "ValueError", 2)
        assert letter.item is not None
        assert letter.item["entity"] == {"n": 1}
        assert letter.item.keys().isdisjoint({"failure_reason", "failed_at", "queue"})
        assert json.loads(letter.raw)["failed_at"] == letter.failed_at
        assert letter.retryable
        broken = False
        assert await queue.aretry_dead_letters(letter_ids=[letter.letter_id]) == 1
        assert await inbox.next() == {"n": 1}
        record = await queue.await_for("op", 5)
    assert (record.status, record.result, record.attempts) == ("succeeded", "sent", 1)
    assert read_record(client, config, "op").deduplication_key == "k"
    assert queue.list_dead_letters().letters == []
    metrics = queue.get_queue_status()["metrics"]
    assert (metrics["dead_letters_retried"], metrics["failed"], metrics["processed"]) == (1, 1, 1)


def test_a_retry_resets_what_was_counted_and_keeps_what_is_not_known(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    item = item_of("op", first_attempt_time=1.5, crashes=2, nonce="old", max_attempts=7)
    item = item.replace(b'"entity"', b'"x-trace":{"big":12345678901234567890},"entity"')
    letter = encode_dead_letter(item, Q.encode(), "boom", "ValueError", 1.0, crashes=2, traceback="in work\n")
    client.lpush(config.failures_queue, letter)
    assert queue.retry_dead_letters() == 1
    (back,) = waiting(client, config)
    assert next(iter(back)) == "operation_id"
    assert back.pop("nonce") not in ("old", "")
    assert back.pop("due") > 1e9, "it waits from now on, not from when it was enqueued"
    assert back == {
        "operation_id": "op", "entity": {"n": 1}, "x-trace": {"big": 12345678901234567890}, "processor": "take",
        "processor_module": "shop", "max_attempts": 7,
    }  # fmt: skip
    assert queue.enqueue({}, "shop.take", operation_id="op")["status"] == "duplicate"


@pytest.mark.parametrize(
    "choice, chosen",
    [
        ({}, "abcd"), ({"queue": "jobs"}, "ad"), ({"queue": "high:jobs"}, "d"), ({"queue": "nothing"}, ""),
        ({"processor": "send"}, "b"), ({"processor": "mails.send"}, "b"), ({"processor": "mails"}, ""),
        ({"error": "valueerror: BO"}, "abd"), ({"error": "refused"}, "c"), ({"min_age": 50}, "abc"),
        ({"max_age": 150}, "d"), ({"min_age": 150, "max_age": 250}, "c"), ({"queue": "other", "error": "boom"}, "b"),
        ({"letter_ids": []}, ""), ({"letter_ids": ["unknown"]}, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["list", "retry", "drop"])
def test_letters_are_chosen_by_all_that_is_asked(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, verb: str, choice: dict[str, Any], chosen: str
) -> None:
    now = client.time()[0]
    client.lpush(config.failures_queue, b"garbage", b"[]", b'{"failed_at":"soon","queue":["x"]}')
    add_dead_letter(config, client, "a", at=now - 400)
    add_dead_letter(config, client, "b", at=now - 300, queue="low:other", processor="send", processor_module="mails")
    add_dead_letter(config, client, "c", at=now - 200, queue="low:other", error="it was REFUSED")
    add_dead_letter(config, client, "d", at=now - 10, queue="high:jobs")
    foreign = 0 if choice else 3
    match verb:
        case "list":
            found = [letter.operation_id for letter in queue.list_dead_letters(**choice).letters]
            assert found == list(reversed(chosen)) + [""] * foreign
            return
        case "retry":
            assert queue.retry_dead_letters(**choice) == len(chosen)
            foreign = 0
        case _:
            assert queue.drop_dead_letters(**choice) == len(chosen) + foreign
    left: Any = client.lrange(config.failures_queue, 0, -1)
    assert len(left) == 7 - len(chosen) - foreign
    assert [id_ for id_ in "abcd" if id_.encode() in b"".join(left).split(b'"')] == [
        i for i in "abcd" if i not in chosen
    ]


def test_pages_follow_one_another_while_new_letters_come(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    """Every letter is shown once, the new ones on no later page; the same with conditions."""
    ids = [f"{n:03}" for n in range(250)]
    add_dead_letter(config, client, *ids)
    for error in (None, "boom"):
        cursor, seen = "", list[str]()
        while True:
            page = queue.list_dead_letters(limit=40, cursor=cursor, error=error)
            seen += [letter.operation_id for letter in page.letters]
            cursor = page.cursor
            add_dead_letter(config, client, f"new-{len(seen)}", queue="low:other")
            if not cursor:
                break
        assert [id_ for id_ in seen if not id_.startswith("new")] == ids[::-1]
        assert len(seen) == len(set(seen))
        queue.drop_dead_letters(queue="other")


def test_what_no_worker_would_take_and_what_lives_stays_and_is_told_once(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, log: LineLogger
) -> None:
    queue.enqueue({}, "shop.take", operation_id="live")
    raw = [b"\xff", b"[]", b'{"operation_id":"x"}']
    client.lpush(config.failures_queue, *[encode_dead_letter(item, Q.encode(), "bad", "E", 1.0) for item in raw], b"{}")
    add_dead_letter(config, client, "live", "good")
    add_dead_letter(config, client, "nowhere", queue="of:nobody")
    shown = {letter.operation_id: letter.retryable for letter in queue.list_dead_letters().letters}
    assert shown == {"nowhere": False, "good": True, "live": True, "": False}
    assert queue.retry_dead_letters() == 1
    assert len(queue.list_dead_letters().letters) == 6
    (line,) = log.of("dead letters stay")
    assert (line["list"], line["live"], line["not_retryable"]) == ("failures", 1, 5)


async def test_bytes_that_are_an_item_by_now_run(make_config: MakeConfig, client: redis.Redis, inbox: Inbox) -> None:
    """As when `max_item_bytes` was raised: the record still tells of the first time, and only one item comes of it."""
    small, large = make_config(max_item_bytes=100), make_config()
    large.register_callback(inbox.put, "take", "shop")
    QueueManager(large).enqueue({"x": "y" * 2000}, "shop.take", "jobs", operation_id="op")
    await first_letter(small, client, "system_errors")
    copy: Any = client.lindex(large.system_errors_queue, 0)
    client.lpush(large.system_errors_queue, copy)
    assert [letter.retryable for letter in QueueManager(small).list_dead_letters("system_errors").letters] == [
        False
    ] * 2
    letter = QueueManager(large).list_dead_letters("system_errors").letters[0]
    assert (letter.retryable, letter.item and letter.item["operation_id"]) == (True, "op")
    assert await QueueManager(large).aretry_dead_letters("system_errors") == 1
    async with running(QueueWorker(large)):
        assert await inbox.next() == {"x": "y" * 2000}
    assert QueueManager(large).get_queue_status()["metrics"]["processed"] == 1


async def test_a_callback_s_letter_runs_the_callback_alone(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, inbox: Inbox
) -> None:
    works, broken = 0, True

    def work(entity: Any) -> str:
        nonlocal works
        works += 1
        return "done"

    def told(data: Any) -> None:
        if broken:
            raise ValueError("boom")
        inbox.put(data)

    queue.enqueue({"n": 1}, work, operation_id="op", on_success=told)
    async with running(QueueWorker(config)):
        await next_letter(client, config.system_errors_queue)
        broken = False
        assert await queue.aretry_dead_letters("system_errors") == 1
        assert await inbox.next() == {"entity": {"n": 1}, "result": "done", "operation_id": "op"}
    assert (works, read_record(client, config, "op").status) == (1, "succeeded")
    assert queue.list_dead_letters("system_errors").letters == []


async def test_signed_letters_run_and_forged_ones_stay(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox
) -> None:
    config = make_config(signing_keys=KEYS)
    queue, broken = QueueManager(config), True

    def work(entity: Any) -> None:
        if broken:
            raise ValueError("boom")
        inbox.put(entity)

    config.register_callback(work, "work", "shop")
    queue.enqueue({"n": 1}, "shop.work", "jobs", retry_config=ONCE)
    async with running(QueueWorker(config)):
        good: Any = await next_letter(client, config.failures_queue)
        raw: Any = client.lindex(config.failures_queue, 0)
        changed = raw.replace(b'"n":1', b'"n":2')
        moved = raw.replace(b"normal:jobs", b"high:jobs")
        plain = encode_dead_letter(item_of("mine"), Q.encode(), "boom", "ValueError", 1.0)
        kept = encode_dead_letter(b"\xff", Q.encode(), "bad", "E", 1.0).replace(
            base64.b64encode(b"\xff"), base64.b64encode(item_of("mine"))
        )
        client.lpush(config.failures_queue, changed, moved, plain, kept)
        broken = False
        assert [letter.retryable for letter in queue.list_dead_letters().letters] == [False] * 4 + [True]
        assert await queue.aretry_dead_letters() == 1
        assert await inbox.next() == good["entity"]
    assert inbox.empty
    assert len(documents(client, config.failures_queue)) == 4
    assert config.logger.of("dead letters stay")[0]["not_retryable"] == 4
    assert documents(client, config.system_errors_queue) == []


async def test_what_an_unknown_key_signed_runs_once_the_key_is_known(
    make_config: MakeConfig, client: redis.Redis, inbox: Inbox
) -> None:
    new = {"2027": "a secret of the year 2027"}
    old, both = make_config(signing_keys=KEYS), make_config(signing_keys={**KEYS, **new})
    both.register_callback(inbox.put, "take", "shop")
    producer = QueueManager(make_config(signing_keys=new))
    producer.enqueue({"n": 1}, "shop.take", "jobs", operation_id="op", deduplication_key="k")
    await first_letter(old, client, "system_errors")
    assert QueueManager(old).retry_dead_letters("system_errors") == 0
    assert await QueueManager(both).aretry_dead_letters("system_errors") == 1
    async with running(QueueWorker(both)):
        assert await inbox.next() == {"n": 1}
    assert read_record(client, both, "op").status == "succeeded"


@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_lost_replies_lose_no_letter_double_none_and_miscount_none(
    make_config: MakeConfig, start_server: StartServer, verb: str
) -> None:
    ids = [f"{n:04}" for n in range(2000)]
    server = start_server(appendonly="no")
    with Proxy(server.url) as proxy, server.client() as client:
        config = make_config(redis_url=proxy.url, max_connection_retries=30)
        add_dead_letter(config, client, *ids)
        proxy.lose("reply", verb, 0.5)
        queue = QueueManager(config)
        assert (queue.retry_dead_letters() if verb == "retry" else queue.drop_dead_letters()) == 2000
        assert proxy.injected[f"reply {verb}"] > 1
        word = "retried" if verb == "retry" else "dropped"
        assert queue.get_queue_status()["metrics"] == {f"dead_letters_{word}": 2000}
        assert places(client, config) == (Counter(ids) if verb == "retry" else Counter())
        config.transport.close()


def test_an_operator_killed_half_way_leaves_each_letter_in_one_place(
    queue: QueueManager, config: QueueConfig, server: OwnServer, client: redis.Redis, prefix: str
) -> None:
    ids = [f"{n:04}" for n in range(8_000)]
    add_dead_letter(config, client, *ids)
    known = {each["id"] for each in client.client_list()}
    with Proxy(server.url) as proxy, start_operator(proxy.url, prefix) as operator:
        proxy.delay(Shape(delay_s=(0.05, 0.05)))  # 8,000 letters are more than 40 requests, so they take over 4 s
        wait_until(lambda: client.llen(prefix + Q) > 500, "some are retried")
        proxy.hold(down=True)  # and without a reply the operator sends no more
        operator.kill()
    wait_until(lambda: {each["id"] for each in client.client_list()} <= known, "the server has seen its last request")
    moved = client.llen(prefix + Q)
    assert 500 < moved < 8_000
    assert places(client, config) == Counter(ids)
    assert queue.retry_dead_letters() == 8_000 - moved
    assert places(client, config) == Counter(ids)
    assert client.llen(config.failures_queue) == 0


async def test_two_operators_retry_all_while_a_worker_buries_new_ones(
    config: QueueConfig, make_config: MakeConfig, server: OwnServer, client: redis.Redis, prefix: str
) -> None:
    """Each letter that was there runs again once; those that come meanwhile are neither lost nor doubled."""
    ran: Counter[str] = Counter()

    def take(entity: dict[str, Any]) -> None:
        ran[entity["id"]] += 1
        raise ValueError("again")

    config.register_callback(take, "take", "shop")
    count = 1500
    ids = [f"{n:04}" for n in range(count)]
    tail = encode_tail(Operation(processor="take", processor_module="shop", max_attempts=1))
    items = [encode_item(id_, b'{"id":"%b"}' % id_.encode(), tail) for id_ in ids]
    found = [encode_dead_letter(item, Q.encode(), "boom", "ValueError", 1.0) for item in items]
    client.lpush(config.failures_queue, *found)
    async with running(QueueWorker(config, max_workers=4)):
        operators = [start_operator(server.url, prefix) for _ in range(2)]
        for operator in operators:
            with operator:
                out, _ = await asyncio.to_thread(operator.communicate)
                assert int(out) <= 2 * count
        retried = QueueManager(config).get_queue_status()["metrics"]["dead_letters_retried"]
        await eventually(lambda: ran.total() == retried, "all that were retried have run")
    assert ran.keys() == set(ids)
    assert Counter(each["operation_id"] for each in documents(client, config.failures_queue)) == Counter(ids)
    assert client.llen(prefix + Q) == 0


@pytest.mark.parametrize("at_the_cap", [False, True])
@pytest.mark.parametrize("verb", ["retry", "drop"])
def test_letters_that_come_meanwhile_are_left_alone(
    queue: QueueManager,
    config: QueueConfig,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    at_the_cap: bool,
) -> None:
    """At the cap each drives an old one out; then no more of them are taken than old ones were."""
    add_dead_letter(config, client, *[f"old-{n:04}" for n in range(2000)])
    run, serial = config.transport.run_many, itertools.count()

    def and_fail(*args: Any, **kwargs: Any) -> Any:
        replies = run(*args, **kwargs)
        add_dead_letter(config, client, f"new-{next(serial)}")
        if at_the_cap:
            client.rpop(config.failures_queue)
        return replies

    monkeypatch.setattr(config.transport, "run_many", and_fail)
    done = queue.retry_dead_letters() if verb == "retry" else queue.drop_dead_letters()
    left, came = [each["operation_id"] for each in documents(client, config.failures_queue)], next(serial)
    assert not [id_ for id_ in left if id_.startswith("old")]
    if at_the_cap:
        assert 2000 - came <= done <= 2000
    else:
        assert (done, len(left)) == (2000, came)


def disturb(config: QueueConfig, monkeypatch: pytest.MonkeyPatch, request: int, do: Callable[[], object]) -> None:
    """Do something in front of a retry's request, the first being 1; from there on each time if `request` is 0."""
    run, serial = config.transport.run_many, itertools.count(1)

    def run_many(commands: Sequence[Command[Any]], **settings: Any) -> Any:
        if commands[0].name == "retry" and request in (0, next(serial)):
            do()
        return run(commands, **settings)

    monkeypatch.setattr(config.transport, "run_many", run_many)


def test_letters_that_moved_far_between_two_requests_are_found_again(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the new ones, which lie in their places by then, stay."""
    add_dead_letter(config, client, *[f"old-{n:04}" for n in range(3000)])

    def others_are_at_work() -> None:
        client.rpop(config.failures_queue, 150)
        add_dead_letter(config, client, *[f"new-{n}" for n in range(150)])

    disturb(config, monkeypatch, 3, others_are_at_work)
    assert queue.retry_dead_letters() == 2850
    assert Counter(each["operation_id"][:3] for each in documents(client, config.failures_queue)) == {"new": 150}


def test_one_letter_is_found_though_the_oldest_go_all_the_time(
    queue: QueueManager, config: QueueConfig, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_dead_letter(config, client, *[f"{n:03}" for n in range(200)])
    (letter,) = queue.list_dead_letters(limit=1, cursor="100").letters
    disturb(config, monkeypatch, 0, lambda: client.rpop(config.failures_queue))
    assert queue.retry_dead_letters(letter_ids=[letter.letter_id]) == 1
    assert [each["operation_id"] for each in waiting(client, config)] == ["099"]


def test_of_letters_that_are_retried_together_the_oldest_runs_first(
    queue: QueueManager, config: QueueConfig, client: redis.Redis
) -> None:
    add_dead_letter(config, client, "a", "b", "c")
    queue.retry_dead_letters()
    assert [each["operation_id"] for each in waiting(client, config)] == ["a", "b", "c"]


def test_a_hundred_thousand_letters_are_listed_retried_and_dropped(
    make_config: MakeConfig, start_server: StartServer
) -> None:
    """Also where those that stay lie between."""
    server = start_server(appendonly="no")
    config = make_config(redis_url=server.url)
    queue, letter = QueueManager(config), b'{"operation_id":"%06d","entity":{},"processor":"take","queue":"normal:q%d"}'
    found = [letter % (n, n % 2) for n in range(100_000)]
    with server.client() as client:
        for start in range(0, len(found), 5000):
            client.lpush(config.failures_queue, *found[start : start + 5000])
    assert queue.list_dead_letters(queue="q0", limit=1).letters[0].operation_id == "099998"
    assert queue.list_dead_letters(error="nothing").letters == []
    assert queue.retry_dead_letters(queue="q0") == 50_000
    assert queue.drop_dead_letters() == 50_000
    status = queue.get_queue_status()
    assert (status["total_items"], status[config.failures_queue]) == (50_000, 0)
