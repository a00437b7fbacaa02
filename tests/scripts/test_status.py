"""status.lua: the lengths of all lists, page by page, without a write."""

from __future__ import annotations

import pytest

from queue_system.broker.replies import StatusPage
from tests.scripts.support import Broker, W, record_of, value_of


def status(broker: Broker, cursor: str = "0") -> StatusPage:
    return broker.run(broker.commands.status(cursor))


def test_the_first_page_tells_of_lists_dead_letters_delayed_running_and_counters(broker: Broker) -> None:
    broker.register("w2")
    broker.enqueue("normal:a", *"123456")
    broker.enqueue("high:b", "d", delay_ms=60_000)
    first = broker.claim(3).first_token
    broker.claim(1, by="w2")
    broker.settle_one("fail", first, "1", record_of("failed", "normal:a"), "", "", b"letter")
    broker.settle_one("reject", first + 1, "2", record_of("rejected", "normal:a"), "", "", b"letter")
    broker.add_dead_letter()
    before, start = broker.snapshot(), broker.now_ms()
    page = status(broker)
    prefix = broker.keys.prefix
    assert page.lists == {f"{prefix}normal:a": 2, f"{prefix}high:b": 0}
    assert (page.cursor, page.failures, page.system_errors, page.delayed, page.running) == ("0", 1, 1, 1, 2)
    assert start <= page.now_ms <= broker.now_ms()
    assert page.counters == {"enqueued": 7, "failed": 1, "rejected": 1, "system_errors": 1}
    assert broker.snapshot() == before


def test_an_empty_prefix_has_an_empty_status(broker: Broker) -> None:
    page = status(broker)
    assert (page.lists, page.failures, page.system_errors, page.delayed, page.running, page.counters) == (
        {}, 0, 0, 0, 0, {},
    )  # fmt: skip


def test_names_of_another_prefix_in_the_registry_are_not_told(broker: Broker) -> None:
    broker.client.sadd(broker.keys.registry, "elsewhere:high:a", b"\xff")
    assert status(broker).lists == {}


def test_a_list_whose_name_is_no_text_does_not_stop_the_status(broker: Broker) -> None:
    broker.client.sadd(broker.keys.registry, broker.keys.prefix.encode() + b"high:\xff")
    assert list(status(broker).lists.values()) == [0]


def test_a_thousand_lists_come_in_pages_each_once(broker: Broker) -> None:
    names = {broker.keys.queue("low", f"q{i}") for i in range(1000)}
    broker.client.sadd(broker.keys.registry, *names)
    page = status(broker)
    seen, pages = dict(page.lists), 1
    while page.cursor != "0":
        page = status(broker, page.cursor)
        assert page.counters is None
        seen |= page.lists
        pages += 1
    assert set(seen) == names
    assert pages > 1


@pytest.mark.parametrize(
    "key", ["registry", "workers", f"inflight:{W}", "normal:a", "failures", "system_errors", "delayed", "metrics"]
)
def test_a_key_of_a_foreign_type_counts_as_empty(broker: Broker, key: str) -> None:
    broker.enqueue("normal:a", "1", "2")
    broker.claim(adopt=value_of("normal:a", "x"))
    broker.squat(key)
    page = status(broker)
    lists = {} if key == "registry" else {f"{broker.keys.prefix}normal:a": 0 if key == "normal:a" else 2}
    assert page.lists == lists
    assert page.running == (0 if key in ("workers", f"inflight:{W}") else 1)
    assert (page.failures, page.system_errors, page.delayed) == (0, 0, 0)


@pytest.mark.parametrize("name, value", [("odd", "abc"), ("odd", "1.5"), (b"\xff", "1")])
def test_a_foreign_counter_does_not_hide_the_others(broker: Broker, name: str | bytes, value: str) -> None:
    broker.enqueue("normal:a", "1")
    broker.client.hset(broker.keys.prefix + "metrics", name, value)
    counters = status(broker).counters
    assert counters is not None
    assert counters["enqueued"] == 1


def test_ten_thousand_workers_come_in_pages_each_once(broker: Broker) -> None:
    """No page looks at more than about a thousand of them, and all pages together tell what one would."""
    names = [f"host:{i}:x" for i in range(10_000)]
    with broker.client.pipeline(transaction=False) as pipeline:
        pipeline.hset(broker.keys.workers, mapping=dict.fromkeys(names[:9_990], "1:15000"))
        pipeline.hset(broker.keys.workers, mapping={f"dead:{name}": "1:15000" for name in names[9_990:]})
        for name in names[::100]:
            pipeline.hset(broker.keys.inflight(name), mapping={"7": "normal:a\nx", "8": "normal:a\ny", "#claim": "c"})
        pipeline.execute()
    cursor = "0"
    running = 0
    workers = 0
    pages = 0
    while pages == 0 or cursor != "0":
        with broker.counting() as counted:
            page = broker.run(broker.commands.status("" if pages else "0", cursor))
        assert counted["hlen"] <= 1_100
        assert (page.counters is None) is (pages > 0)
        cursor = page.workers_cursor
        running += page.running
        workers += page.workers
        pages += 1
    assert (running, workers) == (200, 9_991)  # and the one that most tests use
    assert pages >= 10
