"""Messages that a network loses or cuts: each may be sent again, and nothing is lost, added or repeated."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
from collections import Counter
from typing import Any

import pytest
import redis

from queue_system import QueueConfig, QueueManager, QueueRetryConfig
from queue_system.broker.aio import AioTransport
from queue_system.broker.protocol import Command, pack
from queue_system.broker.requests import NewOperation
from queue_system.errors import ServerUnreachableError
from queue_system.testing.proxy import ANY, Proxy, What
from tests.faults.conftest import Figures, OpenBench, each_ran_once
from tests.faults.support import processors
from tests.faults.support.bench import Bench
from tests.faults.support.producer import Producer, managing
from tests.kit.waiting import wait_until

SHARE = 0.1
LEASE_S = 4.0
RESUMED_WITHIN_S = 5.0
PATIENT = 20
"""So many resends that every call ends well, however many replies in a row are lost."""
W = "w1"


def drain_s(full: bool) -> float:
    return 1800.0 if full else 30.0


def stored(bench: Bench) -> Counter[str]:
    """Count what waits on the server, ready or delayed, by operation id."""
    lists: list[bytes] = bench.client.execute_command("SMEMBERS", f"{bench.prefix}registry")
    delayed: list[bytes] = bench.client.execute_command("ZRANGE", f"{bench.prefix}delayed", 0, -1)
    items = [item for each in lists for item in bench.client.lrange(each, 0, -1)]
    items += [member.rpartition(b"\n")[2] for member in delayed]
    return Counter(json.loads(item)["operation_id"] for item in items)


def wait_processed(bench: Bench, count: int) -> None:
    wait_until(lambda: bench.counter("processed") == count, f"{count} have run\n{bench.logs()}", 2 * LEASE_S)


def enqueue_singly(manager: QueueManager, count: int) -> list[dict[str, Any]]:
    """Enqueue with and without an own id, with a deduplication key, and delayed."""
    answers = []
    for i in range(count):
        kinds: tuple[dict[str, Any], ...] = (
            {"operation_id": f"own-{i}"}, {}, {"deduplication_key": f"key-{i}"}, {"delay": 3600.0},
        )  # fmt: skip
        answers.append(manager.enqueue({"id": i}, processors.work, **kinds[i % 4]))
    return answers


def enqueue_in_batches(manager: QueueManager, count: int, size: int) -> list[dict[str, Any]]:
    """Enqueue batches, every other one with own ids."""
    answers: list[dict[str, Any]] = []
    for start in range(0, count, size):
        own = {"operation_id": [f"batch-{size}-{start + i}" for i in range(size)]} if start // size % 2 else {}
        answers += manager.enqueue_batch([{"id": start + i} for i in range(size)], processors.work, **own)
    return answers


def test_lost_replies_to_enqueues_lose_no_operation_and_add_none(bench: Bench, figures: Figures, full: bool) -> None:
    """A call of 4,000 operations takes several requests, of which each may lose its reply."""
    count = 100_000 if full else 3_000
    with Proxy(bench.server.url) as proxy, managing(proxy.url, bench.prefix, max_connection_retries=PATIENT) as manager:
        proxy.lose("reply", "enqueue", SHARE)
        answers = enqueue_singly(manager, count // 2)
        answers += enqueue_in_batches(manager, count // 2, 10)
        proxy.lose("reply", "enqueue", 0.3)
        answers += enqueue_in_batches(manager, 4_000, 4_000)
        injected = proxy.injected["reply enqueue"]

    acknowledged, found = {answer["operation_id"] for answer in answers}, stored(bench)
    lost, extra = len(acknowledged - found.keys()), found.total() - len(acknowledged & found.keys())
    figures(injected=injected, lost=lost, repeated=extra, enqueued=len(answers))
    assert injected >= count // 50
    assert {answer["status"] for answer in answers} == {"queued"}
    assert len(acknowledged) == len(answers)
    assert lost == extra == 0
    assert bench.counter("enqueued") == len(answers)


def test_lost_replies_to_claims_leave_no_ghosts_and_repeat_nothing(bench: Bench, figures: Figures, full: bool) -> None:
    """Under load and then idle, where the claim waits behind the wake-up marker."""
    count, singles = (100_000, 2_000) if full else (3_000, 100)
    with Proxy(bench.server.url) as proxy:
        proxy.lose("reply", "claim", SHARE)
        ids = bench.enqueue(count, processors.work, 0.004)
        workers = [bench.start_worker(url=proxy.url, slots=4, lease=LEASE_S) for _ in range(2)]
        bench.wait_drained(drain_s(full))
        under_load = proxy.injected["reply claim"]
        for i in range(singles):
            ids += bench.enqueue(1, processors.work, 0.0, name=f"idle-{i}")
            wait_processed(bench, len(ids))
        ghosts_gone_s = wait_until(lambda: not bench.all_in_flight(), "nothing is in flight after 2 beats", LEASE_S / 2)
        injected, claims = proxy.injected["reply claim"], proxy.seen["claim"]

    ghosts = sum(worker.log.count("operations without a holder") for worker in workers)
    assert under_load >= 10
    assert injected > under_load
    each_ran_once(
        bench, figures, ids, injected=injected, claims=claims, injected_while_idle=injected - under_load,
        ghosts_released=ghosts, ghosts_gone_s=round(ghosts_gone_s, 2),
    )  # fmt: skip


def terminal_settlements(client: redis.Redis, listener: Any) -> Counter[str]:
    """Count, as the server told it, how often each record got its lifetime: once for each terminal settlement."""
    client.publish("over", "")
    counts: Counter[str] = Counter()
    for message in listener.listen():
        if message["type"] == "message":
            break
        if message["type"] == "pmessage" and message["data"] == b"expire":
            counts[message["channel"].decode().partition("operation:")[2]] += 1
    return counts


def test_lost_replies_to_settlements_settle_every_operation_exactly_once(
    open_bench: OpenBench, figures: Figures, full: bool
) -> None:
    """Nine of ten operations succeed; the others fail, are retried and are dead-lettered."""
    count = 100_000 if full else 3_000
    bench = open_bench(appendonly="no", notify_keyspace_events="Kg")
    bench.client.config_set("client-output-buffer-limit", "pubsub 0 0 0")
    listener: Any = bench.client.pubsub()
    listener.psubscribe(f"__keyspace@0__:{bench.prefix}operation:*")
    listener.subscribe("over")
    good = bench.enqueue(count * 9 // 10, processors.work, 0.002, on_success=processors.on_success)
    bad = [f"bad-{i}" for i in range(count // 10)]
    bench.manager.enqueue_batch(
        [{"id": each, "seconds": "none"} for each in bad], processors.work, operation_id=bad, queue_name="bad",
        retry_config=QueueRetryConfig(2, [0.0]), on_failure=processors.on_failure,
    )  # fmt: skip
    with Proxy(bench.server.url) as proxy:
        proxy.lose("reply", "settle", SHARE)
        workers = [bench.start_worker(url=proxy.url, lease=LEASE_S) for _ in range(2)]
        bench.wait_drained(drain_s(full))
        injected = proxy.injected["reply settle"]
        proxy.heal()
        lease_lost = sum(worker.stop().get("lease_lost", 0) for worker in workers)

    settled, starts = terminal_settlements(bench.client, listener), bench.journal.count("start")
    listener.close()
    expected = {**dict.fromkeys(good, 1), **dict.fromkeys(bad, 2)}
    figures(
        injected=injected, lost=len(expected.keys() - settled.keys()), repeated=starts.total() - sum(expected.values()),
        terminal_settlements=f"{min(settled.values())} to {max(settled.values())} per operation", lease_lost=lease_lost,
    )  # fmt: skip
    assert injected >= 10
    assert settled == dict.fromkeys(expected, 1)
    assert starts == expected
    assert Counter(letter["operation_id"] for letter in bench.letters("failures")) == dict.fromkeys(bad, 1)
    assert bench.journal.count("success") == dict.fromkeys(good, 1)
    assert bench.journal.count("failure") == dict.fromkeys(bad, 1)
    assert [bench.counter(name) for name in ("processed", "failed", "retried")] == [len(good), len(bad), len(bad)]
    assert lease_lost == 0


class Life:
    """Enqueues, claims and settles single operations by hand, sending each command again after a lost connection."""

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._transport = AioTransport(config.shard.route)
        self.lives = 0

    async def begin(self) -> None:
        """Register, and let an operation live whose id later calls find taken."""
        assert (await self._run(self._config.commands.beat("register", W, 60_000))).alive
        await self.live("taken", also_taken=False)

    async def live(self, name: str, *, also_taken: bool = True) -> None:
        """Let one operation go its whole way, checking each reply."""
        commands, self.lives = self._config.commands, self.lives + 1
        item = b'{"operation_id":"%b","processor":"p"}' % name.encode()
        new = [NewOperation(name, item), *([NewOperation("taken", item)] if also_taken else [])]
        enqueue = commands.enqueue("normal:cut", f"nonce-{name}", new, dedup_ttl_ms=60_000)
        assert self._config.transport.run(enqueue, retries=1) == [1, 0][: len(new)]
        assert (await self._run(commands.beat("beat", W, 60_000))).alive
        claimed = await self._run(commands.claim(W, f"c{self.lives}", 5))
        assert claimed.values == [b"normal:cut\n%b" % item]
        record = f"succeeded\t\t{claimed.now_ms}\tnormal:cut\t\t1\t0\t0\tw\n"
        verdict = pack(("complete", 60_000, 1, claimed.first_token, name, record, "", ""))
        assert await self._run(commands.settle(W, f"s{self.lives}", verdict, 8)) == b"d"

    def close(self) -> None:
        self._transport.close()

    async def _run(self, command: Command[Any]) -> Any:
        try:
            return (await self._transport.run(command))[0]
        except ServerUnreachableError:
            return (await self._transport.run(command))[0]


@pytest.mark.parametrize("script", ["enqueue", "beat", "claim", "settle"])
@pytest.mark.parametrize("what", ["request", "reply"])
async def test_a_message_that_is_cut_at_any_byte_and_sent_again_acts_once(
    bench: Bench, figures: Figures, full: bool, what: What, script: str
) -> None:
    """Every byte of a reply; of a request each, or in the short form every seventh."""
    step = 1 if full or what == "reply" else 7
    with Proxy(bench.server.url) as proxy, managing(proxy.url, bench.prefix) as manager:
        with contextlib.closing(Life(manager.config)) as life:
            await life.begin()
            for cut in itertools.count(1):
                proxy.lose(what, script, keep=(cut - 1) * step, times=1)
                await life.live(f"cut-{cut}")
                if proxy.injected.total() < cut:  # the message was not longer
                    break
        injected = proxy.injected.total()

    figures(injected=injected, lost=life.lives - bench.counter("processed"), repeated=stored(bench).total())
    assert injected >= 4
    assert bench.counter("processed") == bench.counter("enqueued") == life.lives
    assert stored(bench).total() == 0
    assert bench.all_in_flight() == {}


def test_resets_and_cuts_at_random_moments_lose_nothing_and_repeat_nothing(
    bench: Bench, figures: Figures, full: bool
) -> None:
    """With requests lost before they reach the server and replies cut at random bytes."""
    chance, storm_s = random.Random(4), 60.0 if full else 3.0
    with Proxy(bench.server.url, seed=4) as proxy:
        workers = [bench.start_worker(url=proxy.url, lease=2 * LEASE_S) for _ in range(2)]
        with Producer(proxy.url, bench.prefix, "work", pause_s=0.001, max_connection_retries=PATIENT) as producer:
            proxy.lose("request", ANY, 0.01, keep=None)
            proxy.lose("reply", ANY, 0.01, keep=None)
            over_at = time.monotonic() + storm_s
            while time.monotonic() < over_at:
                time.sleep(chance.uniform(0.02, 0.15))  # the random moment itself
                proxy.reset()
            proxy.heal()
            healed_ns = time.monotonic_ns()
            recovery_s = wait_until(lambda: producer.last_ns > healed_ns, "enqueues go on", RESUMED_WITHIN_S)
        bench.wait_drained(20.0)
        lease_lost = sum(worker.stop().get("lease_lost", 0) for worker in workers)
        injected, resets = proxy.injected.total(), proxy.injected["reset"]

    ids = producer.acknowledged
    assert resets >= 20
    each_ran_once(
        bench, figures, ids, injected=injected, recovery_s=round(recovery_s, 2), resets=resets, acknowledged=len(ids),
        lease_lost=lease_lost,
    )  # fmt: skip
    assert producer.errors == []
    assert bench.counter("enqueued") == len(ids)
    assert lease_lost == 0
