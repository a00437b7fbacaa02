"""`doctor` on real servers in real trouble: each danger is found, told with a way out, and nothing changes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig, QueueWorker
from queue_system.broker.diagnostics import ROLES, try_commands
from queue_system.testing.proxy import Proxy, Shape
from tests.cli.support import Answer, RunCli
from tests.kit.acl import AclServer, rules
from tests.kit.configs import MakeConfig
from tests.kit.contents import key_space
from tests.kit.logs import LineLogger
from tests.kit.servers import OwnServer, StartServer
from tests.kit.waiting import eventually, wait_until
from tests.kit.workers import running

ONCE = QueueRetryConfig(max_attempts=1)
ANYWHERE = {"ping", "info", "eval", "evalsha"}
ITEM = b'normal:work\n{"operation_id":"%b","entity":1,"processor":"work","processor_module":"shop"}'


class Patient:
    """A server of the test's own, and how to examine it."""

    def __init__(self, server: OwnServer, cli: RunCli, make_config: MakeConfig) -> None:
        self.server = server
        self._cli = cli
        self._make_config = make_config

    def configured(self, **settings: Any) -> QueueConfig:
        return self._make_config(redis_url=self.server.url, queue_prefix="queue:", **settings)

    def show(self, command: str, *arguments: str) -> Answer:
        return self._cli(command, "--url", self.server.url, "--prefix", "queue:", *arguments)

    def checks(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """Each check's result; the exit code agrees with them."""
        answer = self.show("doctor", "--json", *arguments)
        checks = {check["name"]: check for check in answer.document["checks"]}
        failed = [name for name, check in checks.items() if check["level"] == "fail"]
        assert (answer.code, answer.document["ok"]) == ((1, False) if failed else (0, True))
        assert all(check["sentence"] for check in checks.values())
        assert all(check["advice"] for check in checks.values() if check["level"] != "ok")
        return checks


Treat = Callable[..., Patient]


@pytest.fixture
def treat(start_server: StartServer, cli: RunCli, make_config: MakeConfig) -> Treat:
    """Examines a server that is started with some options."""
    return lambda **options: Patient(start_server(**options), cli, make_config)


@pytest.fixture
def patient(treat: Treat) -> Patient:
    return treat()


@pytest.fixture
def admin(patient: Patient) -> Iterator[redis.Redis]:
    with patient.server.client() as client:
        yield client


async def test_all_is_well_and_nothing_changes(patient: Patient, admin: redis.Redis) -> None:
    config = patient.configured(lease_seconds=1.0)
    QueueManager(config).enqueue({}, "shop.work", delay=60)
    async with running(QueueWorker(config)):
        await eventually(lambda: admin.exists("queue:swept"), "the fleet has swept")
        before = key_space(admin, "queue:d")
        checks = patient.checks()
    assert {name: check["level"] for name, check in checks.items()} == dict.fromkeys(checks, "ok")
    assert list(checks) == [
        "server", "replication", "cluster", "persistence", "eviction", "memory", "latency", "clock", "rights", "names",
        "orphans", "dead_letters", "workers", "stuck_leases",
    ]  # fmt: skip
    (worker,) = checks["workers"]["details"]["workers"]
    assert (worker["lease_s"], worker["holds"], worker["beats"]) == (1.0, 0, True)
    assert key_space(admin, "queue:d") == before


def test_the_text_tells_what_the_document_tells(patient: Patient) -> None:
    answer = patient.show("doctor")
    assert answer.code == 0
    assert "append-only file, appendfsync always" in answer.out
    assert "→ start one: queue-system worker" in answer.out
    assert "14 checks: 13 ok, 1 to look at" in answer.out


@pytest.mark.parametrize(
    "options, arguments, level, said",
    [
        ({"tcp": True}, (), "warn", "any function of the application, and this server asks for no password"),
        (
            {"tcp": True},
            ("--allowed-modules", "tests.flow, tests.cli"),
            "ok",
            "functions of tests.flow, tests.cli, and",
        ),
        ({"tcp": True, "requirepass": "secret"}, (), "ok", "only users who log in can write them"),
        ({}, (), "ok", "only users who can open the socket can write them"),
    ],
)
def test_unset_allowed_modules_are_told_where_the_server_asks_for_no_password(
    treat: Treat, options: dict[str, Any], arguments: tuple[str, ...], level: str, said: str
) -> None:
    names = treat(**options).checks(*arguments)["names"]
    assert names["level"] == level
    assert said in names["sentence"]
    assert ("allowed_modules=[...]" in names["advice"]) is (level == "warn")


def test_allowed_modules_that_cannot_be_found_are_told(patient: Patient) -> None:
    found = patient.checks("--allowed-modules", "tests.flow,no_such_shop")["names"]
    assert (found["level"], found["details"]["missing"]) == ("warn", ["no_such_shop"])


def test_an_evicting_server_without_persistence(treat: Treat) -> None:
    checks = treat(maxmemory="100mb", maxmemory_policy="allkeys-lru", appendonly="no").checks()
    assert checks["eviction"]["level"] == checks["persistence"]["level"] == "fail"
    assert "allkeys-lru" in checks["eviction"]["sentence"]
    assert checks["persistence"]["advice"] == "set appendonly yes"


def test_weaker_settings_are_warned_of(treat: Treat) -> None:
    lazy = treat(maxmemory_policy="volatile-lru", appendfsync="no").checks()
    assert lazy["eviction"]["level"] == lazy["persistence"]["level"] == "warn"
    snapshots = treat(appendonly="no", save="3600 1").checks()
    assert snapshots["persistence"]["level"] == "warn"
    assert "snapshots only" in snapshots["persistence"]["sentence"]


def test_a_server_that_cannot_write_its_data(treat: Treat) -> None:
    patient = treat(tcp=True)
    shutil.rmtree(patient.server.folder)
    with patient.server.client() as client:
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the save fails")
    persistence = patient.checks()["persistence"]
    assert persistence["level"] == "fail"
    assert "rdb_last_bgsave_status" in persistence["sentence"]


def test_memory_that_runs_short(patient: Patient, admin: redis.Redis) -> None:
    admin.setrange("ballast", 30_000_000, "x")  # beside it, what the examination itself takes is nothing
    used = int(admin.info("memory")["used_memory"])
    for share, level in ((0.2, "ok"), (0.87, "warn"), (0.98, "fail")):
        admin.config_set("maxmemory", int(used / share))
        assert patient.checks()["memory"]["level"] == level


def test_a_slow_connection(treat: Treat) -> None:
    patient = treat(tcp=True)
    with Proxy(patient.server.url) as proxy:
        proxy.delay(Shape(delay_s=(0.006, 0.006)))
        latency = patient.checks("--url", proxy.url)["latency"]
    assert latency["level"] == "warn"
    assert latency["details"]["p99_ms"] >= latency["details"]["p50_ms"] >= 5


@pytest.mark.parametrize("login, said", [("", "Authentication required"), (":wrong@", "invalid")])
def test_a_refused_login_is_no_diagnosis_but_one_line_and_4(
    start_server: StartServer, cli: RunCli, login: str, said: str
) -> None:
    """No check could look at anything; the line names the cause, and does not lead back to `doctor`."""
    server = start_server(tcp=True, requirepass="secret")
    answer = cli("doctor", "--url", f"redis://{login}127.0.0.1:{server.port}/0")
    assert (answer.code, answer.out) == (4, "")
    assert "denies access: " in answer.err
    assert said in answer.err
    assert "redis://USER:PASSWORD@HOST:6379/0" in answer.err
    assert "doctor" not in answer.err
    assert ".;" not in answer.err


def test_no_server_is_no_diagnosis(patient: Patient) -> None:
    patient.server.stop()
    answer = patient.show("doctor", "--json")
    assert (answer.code, answer.out) == (3, "")


def test_nobody_works(patient: Patient) -> None:
    assert patient.checks()["workers"]["level"] == "warn"
    config = patient.configured()
    QueueManager(config).enqueue({}, "shop.work")
    workers = patient.checks()["workers"]
    assert workers["level"] == "fail"
    assert "1 waiting operation" in workers["sentence"]


async def test_a_worker_that_does_not_beat(patient: Patient, admin: redis.Redis) -> None:
    """One of several is a warning; the only one is a failure. Who beats and who does not is told by name."""
    admin.hset("queue:workers", "ghost", "7:60000")
    config = patient.configured(lease_seconds=0.4)
    async with running(QueueWorker(config)):
        admin.hset("queue:workers", "ghost", "7:1000")
        workers = patient.checks()["workers"]
        assert workers["level"] == "warn"
        beats = {worker["incarnation"]: worker["beats"] for worker in workers["details"]["workers"]}
        assert len(beats) == 2
        assert beats.pop("ghost") is False
        assert set(beats.values()) == {True}
    admin.hset("queue:workers", "ghost", "7:400")
    alone = patient.checks()["workers"]
    assert alone["level"] == "fail"
    assert "ghost" in alone["sentence"]


def test_a_reclaim_that_hangs(patient: Patient, admin: redis.Redis) -> None:
    admin.hset("queue:workers", "dead:ghost", "7:400")
    admin.hset("queue:inflight:ghost", mapping={"5": ITEM % b"a", "6": ITEM % b"b", "#claim": "c"})
    stuck = patient.checks()["stuck_leases"]
    assert (stuck["level"], stuck["details"]) == ("fail", {"stuck": {"ghost": 2}})
    assert stuck["sentence"] == "not taken over: 2 operations of 1 dead worker"


def test_a_prefix_within_another_is_told(patient: Patient, admin: redis.Redis) -> None:
    """The users of the outer one reach all keys of the inner one."""
    admin.sadd("queue:registry", "queue:normal:work")
    admin.sadd("queue:billing:registry", "queue:billing:normal:work")
    told = patient.checks("--prefix", "queue:billing:")["orphans"]
    assert (told["level"], told["details"]) == ("warn", {"outer_prefixes": ["queue:"]})
    assert patient.checks()["orphans"]["level"] == "ok"


async def test_orphans_are_found_and_the_advice_saves_them(patient: Patient, admin: redis.Redis) -> None:
    """What the check says to do makes a worker run the operations."""
    ran: list[object] = []
    admin.hset("queue:inflight:ghost", mapping={"5": ITEM % b"held", "#claim": "c"})
    admin.lpush("queue:low:work", (ITEM % b"unseen").partition(b"\n")[2])
    admin.set("queue:delayed", "squatter")
    admin.lpush("queue:bystander", "x")
    orphans = patient.checks()["orphans"]
    assert orphans["level"] == "fail"
    assert orphans["details"] == {
        "wrong_type": {"queue:delayed": "string"},
        "unregistered": {"queue:low:work": 1},
        "held_by_nobody": {"ghost": 1},
    }
    rename, *commands = orphans["advice"].split("; ")
    assert rename == "RENAME those keys away"
    admin.rename("queue:delayed", "away")
    for command in commands:
        admin.execute_command(*command.partition(" lets ")[0].split())
    assert patient.checks()["orphans"]["level"] == "ok"
    config = patient.configured(lease_seconds=0.4)
    config.register_callback(ran.append, "work", "shop")
    async with running(QueueWorker(config)):
        await eventually(lambda: len(ran) == 2, "both operations ran")


def test_a_squatted_key_of_the_workers_is_found_and_ends_no_examination(patient: Patient, admin: redis.Redis) -> None:
    admin.set("queue:workers", "squatter")
    checks = patient.checks()
    assert len(checks) == 14
    assert checks["orphans"]["level"] == checks["workers"]["level"] == checks["stuck_leases"]["level"] == "fail"
    assert checks["orphans"]["details"] == {"wrong_type": {"queue:workers": "string"}}
    assert checks["orphans"]["advice"] == "RENAME those keys away"
    admin.rename("queue:workers", "away")
    assert patient.checks()["orphans"]["level"] == "ok"


def test_a_lease_that_no_float_holds_ends_no_examination(patient: Patient, admin: redis.Redis) -> None:
    admin.hset("queue:workers", "stranger", "1:" + "9" * 400)
    workers = patient.checks()["workers"]
    assert (workers["level"], [each["lease_s"] for each in workers["details"]["workers"]]) == ("fail", [0.0])


async def test_dead_letters_are_counted(patient: Patient) -> None:
    config = patient.configured(max_dead_letters=3)
    config.register_callback(lambda entity: 1 / 0, "work", "shop")
    QueueManager(config).enqueue({}, "shop.work", retry_config=QueueRetryConfig(max_attempts=1))
    QueueManager(config).enqueue({}, "os.system")
    async with running(QueueWorker(config)):
        status = QueueManager(config).get_queue_status
        await eventually(lambda: status()["queue:failures"] and status()["queue:system_errors"], "both are there")
    dead_letters = patient.checks()["dead_letters"]
    assert (dead_letters["level"], dead_letters["sentence"]) == ("warn", "1 failure, 1 system error")
    assert dead_letters["advice"] == "queue-system dead-letters list --source failures"


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_must_be_able_to_run_is_what_its_file_grants(role: str) -> None:
    granted = {word.strip("()")[1:] for word in rules(role).split() if word.lstrip("(").startswith("+")}
    assert set(ROLES[role].split()) == granted - ANYWHERE


def test_each_role_is_recognised(guarded: AclServer, cli: RunCli) -> None:
    for role in ROLES:
        answer = cli("doctor", "--url", guarded.url_of(role), "--prefix", "queue:", "--role", role, "--json")
        rights = next(check for check in answer.document["checks"] if check["name"] == "rights")
        assert (answer.code, rights["level"]) == (0, "ok")
        able = [name for name, lacks in rights["details"]["lacks"].items() if not lacks]
        both = ["enqueuer", "producer"]
        assert able == {"viewer": ["viewer"], "enqueuer": both[:1], "producer": both, "worker": list(ROLES)}[role]
    answer = cli("doctor", "--url", guarded.url_of("viewer"), "--prefix", "queue:", "--role", "worker")
    assert answer.code == 1
    assert "as worker this user lacks" in answer.out
    assert "User viewer has no permissions" in answer.out or "user executing" in answer.out or "NOPERM" in answer.out


def test_every_missing_right_is_found_without_effect(guarded: AclServer) -> None:
    """Each command of the worker, taken away from it alone, is the one that is told; nothing is written in trying.

    Redis 7.0 lets no script call a command that may block.
    """
    names = ROLES["worker"].split()
    config = QueueConfig(redis_url=guarded.url_of("worker"), logger=LineLogger())
    with guarded.client() as admin:
        for name in names:
            if name in {"wait", "waitaof", "bzpopmin"} and "valkey_version" not in admin.info("server"):
                continue
            admin.execute_command("ACL", "SETUSER", "worker", f"-{name}")
            assert config.transport.run(try_commands("queue:", names)) == [name]
            admin.execute_command("ACL", "SETUSER", "worker", f"+{name}")
        assert admin.dbsize() == 0
    config.transport.close()


def test_the_examination_is_patient_with_a_long_lease(patient: Patient, admin: redis.Redis) -> None:
    """A worker that beats while it watches ends the watch at once."""
    admin.hset("queue:workers", "w", "7:4000")
    began = time.monotonic()
    patient.checks()
    assert time.monotonic() - began >= 1.5


@pytest.mark.parametrize(
    "settings, count, rests, told, advice",
    [
        ({}, 40, "resting", "queue charge is left alone by 1 of 1 worker: shop.lacking.charge", "restart them"),
        (
            {"max_dead_letters": 1}, 3, "is full",
            "left alone by 1 of 1 worker: system_errors is full; shop.lacking.charge",
            "retry or drop dead letters of system_errors, or raise max_dead_letters",
        ),
    ],
    ids=["no processor", "full system errors"],
)  # fmt: skip
async def test_a_queue_that_workers_leave_alone_is_told_with_the_reason_and_the_way_out(
    patient: Patient, settings: dict[str, Any], count: int, rests: str, told: str, advice: str
) -> None:
    config = patient.configured(lease_seconds=1.0, **settings)
    queue = QueueManager(config)
    queue.enqueue_batch([{}] * count, "shop.lacking.charge")
    async with running(QueueWorker(config)):
        await eventually(lambda: rests in str(queue.get_queue_status()), "the queue is left alone", 20)
        found = patient.checks()["workers"]
    assert found["level"] == "fail"  # nobody else serves it
    assert told in found["sentence"]
    assert advice in found["advice"]
    assert list(found["details"]["resting"]) == ["charge"]


async def test_a_queue_that_no_worker_serves_is_told_with_the_way_out(patient: Patient, admin: redis.Redis) -> None:
    """All workers beat and nothing runs, since they serve other queues: such a typo in --queues shows nowhere else."""
    config = patient.configured(lease_seconds=1.0)
    QueueManager(config).enqueue({}, "shop.work", queue_name="mails")
    async with running(QueueWorker(config, queues=["mials"])):
        assert patient.checks()["workers"]["level"] == "ok"  # it may be started in a moment
        item: Any = admin.lindex("queue:normal:mails", 0)
        old = re.sub(r'("timestamp":)[0-9.]+', r"\g<1>1700000000.0", item.decode())
        admin.lset("queue:normal:mails", 0, old)
        found = patient.checks()["workers"]
    assert found["level"] == "warn"
    assert "work has waited in mails (" in found["sentence"]
    assert "--queues" in found["advice"]
    assert list(found["details"]["unserved"]) == ["mails"]


async def test_abandoned_threads_below_the_bound_and_the_queues_served_are_told_by_worker(patient: Patient) -> None:
    """By `doctor`, by `status` and, where it is asked for, by the table of the workers."""
    leave, begun = threading.Event(), threading.Event()

    def block(entity: object) -> None:
        begun.set()
        leave.wait(60)

    here = f"{socket.gethostname()}:{os.getpid()}"
    try:
        config = patient.configured(lease_seconds=1.0)
        QueueManager(config).enqueue({}, block, queue_name="mails", timeout=0.1, retry_config=ONCE)
        async with running(QueueWorker(config, max_workers=3, queues=["mails", "reports"])) as worker:
            await eventually(lambda: worker.abandoned == 1, "the thread is abandoned", 20)
            await eventually(lambda: "abandoned" in patient.checks()["workers"]["details"], "it is told", 20)
            found, status = patient.checks()["workers"], patient.show("status", "--workers")
            (told,) = patient.show("status", "--json").document["each_worker"]
    finally:
        leave.set()
    assert found["level"] == "warn"
    assert f"threads and tasks passed their time limit and still run in {here} (1)" in found["sentence"]
    assert "run_in_process" in found["advice"]
    assert told == {"worker": here, "queues": ["mails", "reports"], "more_queues": 0, "slots": 3, "abandoned": 1}
    assert f"{here} has 1 abandoned threads and tasks that still run" in status.out
    assert re.search(rf"{re.escape(here)}\s+mails, reports\s+3\s+1\s*\n", status.out)


async def test_a_worker_that_runs_no_more_sync_work_is_told_with_how_many_threads_it_has_abandoned(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_system.execution.runners.threads._LEAST_BOUND", 1)
    monkeypatch.setattr("queue_system.execution.runners.threads._BOUND_FACTOR", 0)
    leave = threading.Event()

    def block(_: Any) -> None:
        leave.wait(60)

    try:
        config = patient.configured(lease_seconds=1.0)
        queue = QueueManager(config)
        queue.enqueue_batch([{}] * 4, block, timeout=0.05)
        async with running(QueueWorker(config, max_workers=1)):
            await eventually(lambda: "resting" in queue.get_queue_status(), "the queue is left alone", 20)
            found = patient.checks()["workers"]
    finally:
        leave.set()
    assert found["level"] == "fail"  # nobody else serves it
    assert "1 threads passed their time limit and still run" in found["sentence"]
    assert "run_in_process" in found["advice"]
