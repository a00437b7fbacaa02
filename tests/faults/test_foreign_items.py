"""What any client may push: a minimal item runs, and garbage is kept as it came."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.faults.conftest import Figures
from tests.faults.support import processors
from tests.faults.support.bench import Bench
from tests.kit.waiting import wait_until

NOTICED_WITHIN_S = 2.0
MODULE = processors.__name__
GARBAGE = {
    "text": b"hello",
    "empty": b"",
    "line feeds": b"\n\n\n",
    "bad UTF-8": b'{"processor":"work","entity":"\xff\xfe"}',
    "UTF-16": '{"processor":"work"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"processor":"work"}',
    "NUL bytes": b'{"processor":\x00"work"}\x00',
    "an array": b'[{"processor":"work"}]',
    "a number": b"1e400",
    "null": b"null",
    "cut off": b'{"processor":"work","entity":{"a":',
    "no processor": b'{"entity": {"a": 1}, "note": "spaces stay"}',
    "a number as processor": b'{"entity": {"a": 1}, "processor": 5}',
    "text as attempts": b'{"processor": "work", "attempts": "many", "crashes": 2}',
    "doubled members": b'{"processor": 1, "processor": 2}',
    "an id with a quote": b'{"operation_id": "a\\"b", "processor": "work"}',
    "NaN": b'{"processor":"work","entity":NaN}',
    "infinity": b'{"processor":"work","entity":-Infinity}',
    "an integer of many digits": b'{"processor":"work","entity":' + b"7" * 100_000 + b"}",
    "deep array": b'{"processor":"work","entity":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep object": b'{"processor":"work","entity":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "deep unknown member": b'{"processor":"work","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


def push(bench: Bench, name: str, *items: bytes) -> None:
    """Do what a foreign client does: LPUSH to a list that is in the registry."""
    bench.client.sadd(f"{bench.prefix}registry", f"{bench.prefix}normal:{name}")
    for item in items:
        bench.client.lpush(f"{bench.prefix}normal:{name}", item)


def recovered(letter: dict[str, Any]) -> bytes | None:
    """Return the bytes as they were pushed, or None if the letter does not hold them."""
    return base64.b64decode(letter["raw_base64"], validate=True) if "raw_base64" in letter else None


def work_item(each: str) -> bytes:
    """Return the least that makes an item."""
    return json.dumps(
        {"entity": {"id": each, "seconds": 0.0}, "processor": "work", "processor_module": MODULE}
    ).encode()


def test_a_hand_written_minimal_item_is_noticed_within_two_seconds_by_an_idle_worker(
    bench: Bench, figures: Figures
) -> None:
    bench.start_worker()
    noticed_s = []
    for each in ("first", "second", "third"):
        bench.wait_idle(1)
        push(bench, "by_hand", work_item(each))
        noticed_s.append(
            wait_until(lambda: bench.journal.count("end")[each], f"{each} ran\n{bench.logs()}", NOTICED_WITHIN_S)  # noqa: B023
        )
    figures(noticed_s=[round(each, 2) for each in noticed_s])
    bench.wait_drained(2.0)
    assert bench.counter("processed") == 3


def test_a_list_counts_as_registered_when_a_worker_was_started_for_its_queue(bench: Bench) -> None:
    bench.start_worker(queues=["by_hand"])
    bench.client.lpush(f"{bench.prefix}normal:by_hand", work_item("only"))
    wait_until(lambda: bench.journal.count("end")["only"], f"it ran\n{bench.logs()}", NOTICED_WITHIN_S)


def test_garbage_goes_once_and_byte_for_byte_to_the_system_errors_and_the_worker_goes_on(bench: Bench) -> None:
    worker = bench.start_worker()
    push(bench, "by_hand", *GARBAGE.values(), work_item("innocent"))
    wait_until(lambda: bench.journal.count("end")["innocent"], f"the innocent ran\n{bench.logs()}", 6.0)
    bench.wait_drained(6.0)
    letters = bench.letters("system_errors")
    kept = [recovered(letter) for letter in letters]
    assert {kind for kind, item in GARBAGE.items() if kept.count(item) != 1} == set()
    assert len(letters) == bench.counter("system_errors") == len(GARBAGE)
    assert all(letter["failure_reason"] and letter["failed_at"] for letter in letters)
    assert bench.counter("processed") == 1
    assert worker.stop().get("lease_lost", 0) == 0


def test_garbage_among_the_delayed_goes_once_to_the_system_errors(bench: Bench) -> None:
    worker = bench.start_worker()
    undecodable = {
        b"no line feed": b"no line feed",
        b"nonce\nnormal:by_hand\nno item": b"no item",
        b"\n\n": b"",
        b"\xff\n\xfe\n\xfd": b"\xfd",
    }
    unplaceable = {
        b"nonce\nmiddle:by_hand\n" + work_item("middle"): work_item("middle"),
        b"nonce\nnormal:by hand\n" + work_item("by hand"): work_item("by hand"),
    }
    bench.client.zadd(f"{bench.prefix}delayed", dict.fromkeys([*undecodable, *unplaceable], 0))
    bench.enqueue(1, processors.work, 0.0, name="innocent")
    bench.wait_drained(8.0)
    letters = bench.letters("system_errors")
    given = [*undecodable.values(), *unplaceable.values()]
    assert sorted(filter(None, map(recovered, letters))) == sorted(filter(None, given))
    assert {each["entity"]["id"] for each in letters if "entity" in each} == {"middle", "by hand"}
    assert len(letters) == len(undecodable) + len(unplaceable)
    assert set(bench.journal.count("end")) == {"innocent-0"}
    assert worker.alive
