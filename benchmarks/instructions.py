"""Instructions per operation, counted by callgrind: `python -m benchmarks.instructions`. Never measures time.

The count of a run with few operations is taken from that of a run with many, so that start and end cancel out. What is
counted is one process at a time: the server, or the producer's or worker's Python. `--turns` counts a turn as a whole,
one settlement of so many and the claim of as many. `PYTHONPATH` chooses the source that is measured. Needs `valgrind`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.servers import find_binary, usual_server
from queue_system import QueueConfig, QueueManager, QueueWorker
from queue_system.execution.delivery import Delivery
from queue_system.execution.outbox import Outbox
from queue_system.execution.settlement import Settler, Timing
from queue_system.model.operation import decode_item
from queue_system.model.verdict import Complete
from tests.kit.servers import OwnServer

_ENTITY = {"user": "123", "action": "update"}
_BATCH = 1000
_TURN_SIZES = (1, 10, 50, 400)
_FEW, _MANY = 1000, 5000
_TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


async def nothing(entity: object) -> None:
    """Do nothing."""


def main() -> None:
    """Count, and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__.partition("\n")[0])
    parser.add_argument("--server", default=usual_server(), help="valkey, redis, or the path of a server binary")
    parser.add_argument("--growth", action="store_true", help="count the server's part beside what it holds")
    parser.add_argument("--turns", action="store_true", help="count the server's part in turns of 1, 10, 50 and 400")
    parser.add_argument("--child", nargs=3, metavar=("ROLE", "URL", "COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        role, url, count = arguments.child
        _ROLES[role](QueueConfig(redis_url=url), int(count))
        return
    binary = find_binary(arguments.server)
    if arguments.growth:
        _tell_growth(binary)
        return
    if arguments.turns:
        _tell_turns(binary)
        return
    print("| instructions per operation | server | Python |\n|---|---|---|")  # noqa: T201 - the output
    for role in ("enqueue", "batch", "drain"):
        server, client = (_per_operation(binary, role, side) for side in ("server", "client"))
        print(f"| {role} | {server:,.0f} | {client:,.0f} |", flush=True)  # noqa: T201 - the output


def _tell_growth(binary: Path) -> None:
    print("| server instructions per operation, besides | enqueue | claim and settle |\n|---|---|---|")  # noqa: T201
    for words, fill in _BESIDES.items():
        cells = []
        for role in ("enqueue", "claim"):
            few, many = (_serve_beside(binary, [*fill, ("batch", _MANY), (role, n)]) for n in (_FEW, _MANY))
            cells.append(f"{(many - few) / (_MANY - _FEW):,.0f}")
        print(f"| {words} | {' | '.join(cells)} |", flush=True)  # noqa: T201


def _tell_turns(binary: Path) -> None:
    print("| operations in a turn | server instructions per turn | per operation |\n|---|---|---|")  # noqa: T201
    for size in _TURN_SIZES:
        turns = max(20, 2 * _FEW // size)
        fill = ("batch", 2 * turns * size)
        few, many = (_serve_beside(binary, [fill, (f"claim {size}", n * size)]) for n in (turns, 2 * turns))
        print(f"| {size} | {(many - few) / turns:,.0f} | {(many - few) / turns / size:,.0f} |", flush=True)  # noqa: T201


def _serve_beside(binary: Path, orders: Sequence[tuple[str, int]]) -> int:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        out = Path(folder) / "out"
        return _serve(_callgrind(out), binary, out, orders)


def _callgrind(out: Path) -> list[str]:
    return ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]


def _per_operation(binary: Path, role: str, side: str) -> float:
    few, many = (_count(binary, role, side, count) for count in (_FEW, _MANY))
    return (many - few) / (_MANY - _FEW)


def _count(binary: Path, role: str, side: str, count: int) -> int:
    """Count the instructions of one side; in a drain the items are there before the counting begins or ends."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        out = Path(folder) / "out"
        counted = _callgrind(out)
        if side == "client":
            with OwnServer(binary=binary, appendonly="no") as own:
                if role == "drain":
                    _run("batch", own.url, count)
                _run(role, own.url, count, under=counted)
            return _total(out)
        filled = [("batch", count)] if role == "drain" else []
        total = _serve(counted, binary, out, [*filled, (role, count)])
        return total - _serve(counted, binary, out, filled) if filled else total


def _serve(counted: Sequence[str], binary: Path, out: Path, orders: Sequence[tuple[str, int]]) -> int:
    with OwnServer(binary=_wrapper(counted, binary, out.parent), appendonly="no") as own:
        for role, count in orders:
            _run(role, own.url, count)
        own.stop()
    return _total(out)


def _wrapper(counted: Sequence[str], binary: Path, folder: Path) -> Path:
    wrapper = folder / "server"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(counted)} {binary} "$@"\n')
    wrapper.chmod(0o700)
    return wrapper


def _run(role: str, url: str, count: int, *, under: Sequence[str] = ()) -> None:
    command = [*under, sys.executable, "-m", "benchmarks.instructions", "--child", role, url, str(count)]
    subprocess.run(command, check=True)  # noqa: S603 - our own command


def _total(out: Path) -> int:
    found = _TOTAL.search(out.read_text())
    if found is None:
        raise ValueError(f"{out} tells no total; was valgrind killed?")
    return int(found[1])


def _enqueue(config: QueueConfig, count: int) -> None:
    manager = QueueManager(config)
    for _ in range(count):
        manager.enqueue(_ENTITY, nothing)


def _enqueue_batches(config: QueueConfig, count: int) -> None:
    manager = QueueManager(config)
    for _ in range(0, count, _BATCH):
        manager.enqueue_batch([_ENTITY] * _BATCH, nothing)


def _drain(config: QueueConfig, count: int) -> None:
    done, left = asyncio.Event(), count

    async def counted(_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async def work() -> None:
        config.register_callback(counted, nothing.__name__, "benchmarks.instructions")
        worker = QueueWorker(config, max_workers=100)
        await worker.start()
        await done.wait()
        await worker.stop()

    asyncio.run(work())


def _claim(config: QueueConfig, count: int, size: int = 500) -> None:
    commands, run = config.commands, config.transport.run
    settler = Settler("host:1234", 300.0, config.max_item_bytes)
    outbox = Outbox()
    largest = 0
    run(commands.beat("register", "w", 60_000))
    for turn in range(0, count, size):
        claimed = run(commands.claim("w", f"c{turn}", size, expected=largest))
        if claimed is None or len(claimed.values) != size:
            raise ValueError(f"too few items to claim {size}")
        largest = claimed.largest
        for token, value in enumerate(claimed.values, claimed.first_token):
            queue, _, item = (value or b"").partition(b"\n")
            delivery = Delivery("w", token, queue, item, decode_item(item, config.max_item_bytes), 0.0)
            outbox.put(settler.settle(delivery, Complete(None), Timing(claimed.now_ms, claimed.now_ms, 0.001)))
        batch = outbox.take(size)
        if batch is not None:
            run(commands.settle("w", f"s{turn}", batch.packed, batch.count))


def _enqueue_to_many(config: QueueConfig, count: int) -> None:
    manager = QueueManager(config)
    for number in range(count):
        manager.enqueue(_ENTITY, nothing, queue_name=f"queue{number}", priority="low")


def _enqueue_delayed(config: QueueConfig, count: int) -> None:
    manager = QueueManager(config)
    for _ in range(0, count, _BATCH):
        manager.enqueue_batch([_ENTITY] * _BATCH, nothing, delay=3600.0)


_ROLES: dict[str, Callable[[QueueConfig, int], None]] = {
    "enqueue": _enqueue,
    "batch": _enqueue_batches,
    "drain": _drain,
    "claim": _claim,
    **{f"claim {size}": partial(_claim, size=size) for size in _TURN_SIZES},
    "queues": _enqueue_to_many,
    "delayed": _enqueue_delayed,
}
_BESIDES: dict[str, list[tuple[str, int]]] = {
    "nothing": [],
    "100,000 ready": [("batch", 100_000)],
    "10,000 queues with an item": [("queues", 10_000)],
    "100,000 delayed": [("delayed", 100_000)],
}

if __name__ == "__main__":
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is needed")
    main()
