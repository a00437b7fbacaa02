"""The users of docs/acl: each can do all that its role is for, and nothing else. The ACL log of the server tells."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from queue_system import (
    AccessDeniedError,
    InvalidInputError,
    QueueConfig,
    QueueManager,
    QueueRetryConfig,
    QueueWorker,
    WaitTimeoutError,
    WrongKeyTypeError,
)
from queue_system.broker import commands
from queue_system.broker.commands import SCRIPTS
from queue_system.inspection.fleet import read_fleet
from queue_system.maintenance.retention import Retention
from queue_system.model.dead_letter import encode_dead_letter
from tests.kit.acl import ROLES, AclServer, rules
from tests.kit.configs import close, configs
from tests.kit.contents import documents, key_space, record_of
from tests.kit.inbox import Inbox
from tests.kit.logs import LineLogger
from tests.kit.operations import work
from tests.kit.waiting import eventually
from tests.kit.workers import running

MONTH_S = 30 * 86_400
OPTIONS = {"COUNT", "LIMIT", "MAXLEN", "WITHSCORES"}
"""Words in the scripts that look like commands."""
ANYWHERE = {"ping", "info", "eval", "evalsha"}
EXPECTED = ("client|setinfo", "config|get", "msetex")
"""Refusals that docs/acl.md explains: the client library introduces itself, the worker looks at settings, and at what
newer servers can do."""
FORBIDDEN: list[tuple[str, ...]] = [
    ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "GET", "*"), ("KEYS", "*"),
    ("SCAN", "0"), ("DEBUG", "SLEEP", "0"), ("ACL", "LIST"), ("SCRIPT", "FLUSH"), ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "NO", "ONE"), ("CLIENT", "KILL", "TYPE", "normal"), ("MONITOR",), ("SELECT", "1"),
    ("PUBLISH", "queue:wake", "x"), ("GET", "foreign"), ("SET", "foreign", "x"), ("DEL", "foreign"),
    ("LPUSH", "queue", "x"), ("LLEN", "other:queue:high:work"), ("EVAL", "return redis.call('GET', 'foreign')", "0"),
    ("EVAL", "return redis.call('FLUSHALL')", "0"), ("EVAL", "return redis.call('KEYS', '*')", "0"),
    ("EVAL", "return 1", "1", "foreign"),
]  # fmt: skip

LETTER = encode_dead_letter(b'{"operation_id":"a","processor":"p"}', b"normal:p", "boom", "ValueError", 1.0)

AsRole = Callable[..., QueueConfig]


@pytest.fixture
def admin(guarded: AclServer) -> Iterator[redis.Redis]:
    """Who may do everything."""
    with guarded.client() as client:
        yield client


@pytest.fixture
def as_role(guarded: AclServer) -> Iterator[AsRole]:
    """Makes the configuration of a process that is one of the roles."""
    with configs(guarded.url, "queue:") as make:
        yield lambda role, **settings: make(redis_url=guarded.url_of(role), **settings)


def refused(admin: redis.Redis) -> list[str]:
    """What the server has refused, but for `EXPECTED`."""
    entries: list[dict[str, Any]] = admin.acl_log()
    told = [" ".join(str(entry[field]) for field in ("username", "reason", "object")) for entry in entries]
    return [line for line in told if not line.endswith(EXPECTED)]


def granted(role: str) -> set[str]:
    """The commands that a role's file names."""
    return {word.strip("()")[1:] for word in rules(role).split() if word.lstrip("(").startswith("+")}


def within(*scripts: str) -> set[str]:
    """The commands inside some scripts."""
    code = "".join(re.sub(r"--[^\n]*", "", SCRIPTS[name].source.decode()) for name in scripts)
    return {word.lower() for word in set(re.findall(r"'([A-Z]{3,})'", code)) - OPTIONS}


def test_the_worker_s_file_names_the_commands_that_the_package_sends_and_no_other() -> None:
    """All but CONFIG: it would show the server's passwords, and a worker only looks at settings to warn of them."""
    plain = re.findall(r'plain\(\w+, "([A-Z]+)"', Path(commands.__file__).read_text(encoding="utf-8"))
    assert granted("worker") == within(*SCRIPTS) | {name.lower() for name in plain} - {"config"} | ANYWHERE


def test_the_files_of_the_other_roles_name_what_their_scripts_need_and_no_other() -> None:
    waiting = {"hincrby", "wait", "waitaof"}
    assert granted("enqueuer") == within("enqueue") | waiting | ANYWHERE
    assert granted("producer") == within("enqueue", "get_record", "status") | waiting | {"xread"} | ANYWHERE
    operator = within("retry", "drop", "get_record", "purge", "status", "oldest") | {
        "lrange",
        "llen",
        "time",
        "zscan",
        "xread",
    }
    assert granted("operator") == operator | ANYWHERE
    assert granted("viewer") == within("status") | {"lrange", "llen", "time"} | ANYWHERE


@pytest.mark.parametrize("role", ["producer", "enqueuer"])
def test_a_producer_enqueues_and_reads_the_status_and_one_who_only_enqueues_does_not(
    as_role: AsRole, admin: redis.Redis, role: str
) -> None:
    config = as_role(role)
    queue = QueueManager(config)
    queue.enqueue({"n": 1}, work)
    for expected in ("queued", "duplicate"):
        assert queue.enqueue({"n": 2}, work, operation_id="mine")["status"] == expected
        assert queue.enqueue({"n": 3}, work, deduplication_key="k")["status"] == expected
    queue.enqueue({"n": 4}, work, delay=60)
    queue.enqueue_batch([{"n": n} for n in range(1500)], work, priority="low")
    config._ensure_redis_sync()
    if role == "producer":
        status = queue.get_queue_status()
        assert (status["total_items"], status["queue:delayed"], status["metrics"]["enqueued"]) == (1503, 1, 1504)
        record = record_of(queue, "mine")
        assert record.status == "queued"
        with pytest.raises(WaitTimeoutError):
            queue.wait_for("mine", 0.05)
    assert refused(admin) == []
    calls: list[Callable[[], object]] = [lambda: queue.purge_queue("work")]
    if role == "enqueuer":
        calls += [lambda: queue.wait_for("mine", 0.05)]
    for call in calls:
        with pytest.raises(AccessDeniedError):
            call()
    operator = QueueManager(as_role("operator"))
    assert operator.purge_queue("work") == 4
    assert operator.purge_queue("work", "low") == 1500
    assert operator.get_queue_status()["total_items"] == 0


@pytest.mark.parametrize("role", ["producer", "enqueuer"])
def test_who_enqueues_can_neither_forge_a_result_nor_read_what_waits(
    guarded: AclServer, as_role: AsRole, admin: redis.Redis, role: str
) -> None:
    """A record that there is cannot be overwritten, removed or let expire, and no command returns an item."""
    queue = QueueManager(as_role(role))
    queue.enqueue({"card": 4111}, work, operation_id="mine")
    queue.enqueue({"card": 4111}, work, delay=60)
    forged = b"succeeded\t\t1\tnormal:work\t\t1\t0\t0\tw\n{}"
    before = key_space(admin, "queue:")
    key = "queue:operation:mine"
    tries: list[tuple[Any, ...]] = [
        ("SET", key, forged), ("DEL", key), ("UNLINK", key), ("GETDEL", key), ("PEXPIRE", key, 1), ("APPEND", key, "x"),
        ("SETRANGE", key, 0, forged), ("RENAME", key, "queue:operation:x"), ("HSET", key, "f", "v"),
        ("LPUSH", key, "x"),
        ("COPY", "queue:operation:x", key, "REPLACE"), ("LPOP", "queue:normal:work"), ("RPOP", "queue:normal:work"),
        ("LRANGE", "queue:normal:work", 0, -1), ("LINDEX", "queue:normal:work", 0), ("ZRANGE", "queue:delayed", 0, -1),
        ("ZSCAN", "queue:delayed", 0), ("XADD", "queue:change:mine", "*", "c", ""), ("SET", "queue:token", 9),
    ]  # fmt: skip
    with redis.Redis.from_url(guarded.url_of(role)) as client:
        for words in tries:
            with pytest.raises(redis.ResponseError, match=r"permission|WRONGTYPE"):
                client.execute_command(*words)
        assert client.msetnx({key: forged}) == 0
        with pytest.raises(redis.ResponseError, match=r"ACL|permission|can't run"):
            client.eval(f"return redis.call('SET', '{key}', 'x')", 1, "queue:")
    assert key_space(admin, "queue:") == before


def test_a_producer_waits_for_the_disk_or_is_told_that_the_server_cannot(as_role: AsRole, admin: redis.Redis) -> None:
    queue = QueueManager(as_role("producer"))
    version = tuple(map(int, admin.info("server")["redis_version"].split(".")))
    if version >= (7, 2):
        assert queue.enqueue({}, work, durability="fsync")["status"] == "queued"
    else:
        with pytest.raises(InvalidInputError, match=r"durability: .*7\.2"):
            queue.enqueue({}, work, durability="fsync")
    assert refused(admin) == []


@pytest.mark.parametrize("role", ["producer", "enqueuer"])
def test_a_producer_takes_back_what_it_cannot_finish(as_role: AsRole, admin: redis.Redis, role: str) -> None:
    queue = QueueManager(as_role(role))
    admin.set("queue:registry", "squatter")
    with pytest.raises(WrongKeyTypeError, match="holds a value of another type"):
        queue.enqueue({}, work, deduplication_key="k")
    assert admin.keys("*") == [b"queue:registry"]
    assert refused(admin) == []


def test_a_producer_reaches_neither_dead_letters_nor_what_workers_hold(guarded: AclServer, admin: redis.Redis) -> None:
    admin.lpush("queue:failures", "letter")
    admin.hset("queue:inflight:w", "1", "item")
    reaches = [("RPOP", "queue:failures"), ("LPUSH", "queue:system_errors", "x"), ("HGETALL", "queue:inflight:w"),
               ("HDEL", "queue:inflight:w", "1"), ("HSET", "queue:workers", "w", "1:1")]  # fmt: skip
    with redis.Redis.from_url(guarded.url_of("producer")) as client:
        for command in reaches:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


async def test_a_worker_claims_settles_retries_dead_letters_and_leaves(
    as_role: AsRole, admin: redis.Redis, inbox: Inbox
) -> None:
    tried: list[object] = []

    def flaky(entity: object) -> None:
        tried.append(entity)
        if len(tried) == 1:
            raise ValueError("the first time")
        inbox.put("flaky")

    def broken(entity: object) -> None:
        raise ValueError("always")

    config, queue = as_role("worker", max_dead_letters=1), QueueManager(as_role("producer"))
    for processor in (flaky, broken):
        config.register_callback(processor, processor.__name__, "shop")
    config.register_callback(lambda entity: inbox.put("plain"), "plain", "shop")
    config.register_callback(lambda data: inbox.put(data["operation_id"]), "told", "shop")
    queue.enqueue({}, "shop.flaky", retry_config=QueueRetryConfig(max_attempts=2, delays=[0.05]))
    for name in ("b1", "b2"):
        queue.enqueue({}, "shop.broken", operation_id=name, retry_config=QueueRetryConfig(max_attempts=1),
                      on_failure="shop.told", deduplication_key=name)  # fmt: skip
    queue.enqueue({}, "os.system", operation_id="bad")
    queue.enqueue({}, "shop.plain", delay=0.2, on_success="shop.told", operation_id="late")
    async with running(QueueWorker(config)):
        assert sorted(await inbox.take(5)) == ["b1", "b2", "flaky", "late", "plain"]
        await eventually(lambda: admin.llen("queue:system_errors") == 1, "the bad name is dead-lettered")
        admin.lpush("queue:low:foreign", json.dumps({"processor": "plain", "processor_module": "shop"}))
        admin.sadd("queue:registry", "queue:low:foreign")
        assert await inbox.next() == "plain"
    status = QueueManager(config).get_queue_status()
    assert status["queue:failures"] == 1
    assert status["metrics"] | {"processed": 3, "failed": 2, "rejected": 1, "retried": 1} == status["metrics"]
    assert (status["total_items"], status["queue:running"], admin.exists("queue:workers")) == (0, 0, 0)
    assert Retention(config, config.shard, lambda: int((time.time() + MONTH_S) * 1000)).trim() == 2
    assert refused(admin) == []


async def test_a_worker_of_named_queues_serves_them_and_enqueues(
    as_role: AsRole, admin: redis.Redis, inbox: Inbox
) -> None:
    """A processor may enqueue what follows from its operation, in its worker's name."""
    config = as_role("worker")
    queue = QueueManager(config)

    def first(entity: object) -> None:
        queue.enqueue({}, inbox.put, queue_name="second", deduplication_key="k")

    async with running(QueueWorker(config, queues=["first", "second"])):
        queue.enqueue_batch([{}], first, queue_name="first", delay=0.1)
        assert await inbox.next() == {}
    assert queue.purge_queue("second") == 0
    assert refused(admin) == []


async def test_a_worker_takes_over_from_a_dead_one(as_role: AsRole, admin: redis.Redis, inbox: Inbox) -> None:
    config = as_role("worker", lease_seconds=1.0)
    config.register_callback(inbox.put, "take", "shop")
    QueueManager(as_role("producer")).enqueue_batch([{"n": 1}, {"n": 2}], "shop.take")
    admin.rpush("queue:normal:take", json.dumps({"operation_id": "poison", "processor": "take", "crashes": 3}))
    run, dead = config.transport.run, config.commands
    run(dead.beat("register", "dead", 200))
    claimed = run(dead.claim("dead", "c1", 3))
    assert claimed is not None
    assert len(claimed.values) == 3
    async with running(QueueWorker(config)):
        assert sorted([entity["n"] for entity in await inbox.take(2)]) == [1, 2]
        await eventually(lambda: admin.llen("queue:system_errors") == 1, "the poison is dead-lettered")
    assert [letter["operation_id"] for letter in documents(admin, "queue:system_errors")] == ["poison"]
    assert not admin.exists("queue:inflight:dead")
    assert refused(admin) == []


async def test_an_operator_lists_retries_and_drops_dead_letters(as_role: AsRole, admin: redis.Redis) -> None:
    config, queue = as_role("worker"), QueueManager(as_role("operator"))
    for name in ("a", "b", "c"):
        QueueManager(as_role("producer")).enqueue({}, "os.system", operation_id=name, deduplication_key=name)
    async with running(QueueWorker(config)):
        await eventually(lambda: admin.llen("queue:system_errors") == 3, "the bad name is dead-lettered")
    page = queue.list_dead_letters("system_errors")
    assert QueueManager(as_role("viewer")).list_dead_letters("system_errors") == page
    chosen = page.letters[0]
    assert queue.wait_for(chosen.operation_id, 5).status == "system_error"
    assert queue.retry_dead_letters("system_errors", letter_ids=[chosen.letter_id]) == 1
    assert admin.exists(f"queue:change:{chosen.operation_id}")
    assert queue.drop_dead_letters("system_errors", error="UnresolvableName", max_age=60) == 2
    assert queue.get_queue_status()["total_items"] == 1
    assert queue.purge_queue("system") == 1
    assert refused(admin) == []


def test_a_retry_without_the_right_to_one_of_its_commands_changes_nothing(
    guarded: AclServer, as_role: AsRole, admin: redis.Redis
) -> None:
    """As with the file of an older release: the letter stays where it is."""
    admin.lpush("queue:failures", LETTER)
    admin.execute_command("ACL", "SETUSER", "operator", "-lset")
    before = key_space(admin, "queue:")
    with pytest.raises(AccessDeniedError):
        QueueManager(as_role("operator")).retry_dead_letters()
    assert key_space(admin, "queue:") == before


@pytest.mark.parametrize("role", ["producer", "viewer"])
def test_others_neither_retry_nor_drop(as_role: AsRole, admin: redis.Redis, role: str) -> None:
    admin.lpush("queue:failures", LETTER)
    queue = QueueManager(as_role(role))
    for call in (queue.retry_dead_letters, queue.drop_dead_letters):
        with pytest.raises(AccessDeniedError):
            call()
    assert admin.lrange("queue:failures", 0, -1) == [LETTER]


def test_a_viewer_reads_the_status_and_changes_nothing(guarded: AclServer, as_role: AsRole, admin: redis.Redis) -> None:
    producer, viewer = QueueManager(as_role("producer")), QueueManager(as_role("viewer"))
    producer.enqueue_batch([{"n": n} for n in range(3)], work)
    producer.enqueue({}, work, delay=60)
    admin.lpush("queue:failures", "letter")
    run = as_role("worker").transport.run
    run(producer.config.commands.beat("register", "w", 60_000))
    run(producer.config.commands.claim("w", "c1", 1))
    seen, before = viewer.get_queue_status(), key_space(admin, "queue:")
    assert {**producer.get_queue_status(), "status_time": 0} == {**seen, "status_time": 0}
    with redis.Redis.from_url(guarded.url_of("viewer")) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.lindex("queue:normal:work", 0)
    admin.acl_log_reset()
    assert (seen["total_items"], seen["queue:running"], seen["queue:failures"]) == (2, 1, 1)
    assert seen["metrics"] == {"enqueued": 4}
    (figures,) = read_fleet(viewer.config).queues
    assert (figures.name, figures.depth, figures.oldest_age_s) == ("work", 2, None)
    (figures,) = read_fleet(as_role("worker")).queues
    assert figures.oldest_age_s is not None
    assert refused(admin) == []
    changes: list[Callable[[], object]] = [
        lambda: viewer.enqueue({}, work),
        lambda: viewer.enqueue_batch([{}], work),
        lambda: viewer.purge_queue("work"),
    ]
    for change in changes:  # a worker that lacks a command of a script shall refuse to start, not try again for ever
        with pytest.raises(AccessDeniedError):
            change()
    with redis.Redis.from_url(guarded.url_of("viewer")) as client:
        for command in (
            ("LRANGE", "queue:normal:work", 0, -1),
            ("HGETALL", "queue:inflight:w"),
            ("DEL", "queue:delayed"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
    assert key_space(admin, "queue:") == before


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reaches_the_server_itself_or_a_foreign_key(guarded: AclServer, admin: redis.Redis, role: str) -> None:
    admin.mset({"foreign": "x", "queue:operation:a": "x"})
    before = key_space(admin, "")
    with redis.Redis.from_url(guarded.url_of(role)) as client:
        for command in FORBIDDEN:
            with pytest.raises(redis.ResponseError, match=r"permission|can't (run|access)"):
                client.execute_command(*command)
    assert key_space(admin, "") == before
    assert len(refused(admin)) > 1


def test_nobody_comes_in_without_a_name(guarded: AclServer) -> None:
    config = QueueConfig(redis_url=f"unix://{guarded.socket_path}", logger=LineLogger())
    with contextlib.closing(config.transport) as transport, pytest.raises(AccessDeniedError):
        transport.run(config.commands.status("0"))


async def test_a_worker_that_may_not_read_the_server_s_description_works_in_silence(inbox: Inbox) -> None:
    """As on a managed service: what cannot be read is not warned of."""
    with AclServer(without="+info", maxmemory_policy="allkeys-lru") as server:
        config = QueueConfig(redis_url=server.url, logger=LineLogger())
        queue = QueueManager(config)
        async with running(QueueWorker(config)):
            queue.enqueue({"n": 1}, inbox.put)
            assert await inbox.next() == {"n": 1}
            with server.client() as client:
                await eventually(lambda: "config|get" in str(client.acl_log()), "it asked for the settings")
        close(config)
    assert [line for line in config.logger.lines if line.level in ("warning", "error")] == []
