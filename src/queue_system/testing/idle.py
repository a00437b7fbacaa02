"""Runs a worker until nothing is left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from queue_system.broker.protocol import plain
from queue_system.config import QueueConfig
from queue_system.execution.settlement import Settlement
from queue_system.manager import QueueManager
from queue_system.model.formats import split_member
from queue_system.model.keys import split_queue
from queue_system.model.states import Verb
from queue_system.model.verdict import Fail, Reject, Retry
from queue_system.tracebacks import Trace
from queue_system.validation import check_choice, check_seconds, refused, type_name
from queue_system.worker import QueueWorker

Delayed = Literal["leave", "wait", "skip"]

_LOOK_EVERY_S = 0.005
_NO_SIGN_OF_WORK = ("status_time", "total_items")


async def run_until_idle(
    target: QueueConfig | QueueWorker,
    *,
    delayed: Delayed = "leave",
    timeout: float = 30.0,  # noqa: ASYNC109 - its error says what was left
    raise_errors: bool = False,
) -> None:
    """Run a worker until nothing that it serves is ready or running, callbacks included.

    Args:
        target: a worker, or a configuration for which one is made. It is started, and stopped at the end; one that
            runs already is left running.
        delayed: what becomes of retries and delayed operations that are not due yet. `"leave"`: they stay. `"wait"`:
            they are waited for. `"skip"`: they are made due at once, in their order, so no test waits for a delay.
        timeout: limit in s.
        raise_errors: raise at the end what the first processor or callback raised whose operation has not succeeded
            since: the very exception, or one of its name if it came from a child process.

    Raises:
        TimeoutError: there is still work; the message says how much of what.
        ServerError: the server is in trouble.
    """
    check_choice("delayed", delayed, ("leave", "wait", "skip"))
    check_seconds("timeout", timeout, above=True)
    worker = QueueWorker(target) if isinstance(target, QueueConfig) else target
    if not isinstance(worker, QueueWorker):
        raise refused("target", "a QueueConfig or a QueueWorker", type_name(worker))
    with _Errors(worker) as errors:
        await _run(worker, delayed, timeout)
    if raise_errors:
        errors.throw()


async def _run(worker: QueueWorker, delayed: Delayed, timeout: float) -> None:  # noqa: ASYNC109 - as above
    was_running = worker.running
    await worker.start()
    watch = _Watch(worker, delayed)
    grace: float | None = None
    try:
        async with asyncio.timeout(timeout):
            while not await watch.is_idle():  # noqa: ASYNC110 - another worker may end last: no event says so
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        grace = 0.0
        raise TimeoutError(f"not idle after {timeout:g} s; left are {watch.left}") from None
    finally:
        if not was_running:
            await worker.stop(grace=grace)


class _Errors:
    """The errors of the operations of one worker that have not succeeded since."""

    def __init__(self, worker: QueueWorker) -> None:
        self._worker = worker
        self._before = worker.on_error
        self._found: dict[str, Trace] = {}

    def __enter__(self) -> Self:
        self._worker.on_error = self._note
        self._worker.config.observers.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.on_error = self._before
        self._worker.config.observers.remove(self)

    def _note(self, operation_id: str, verdict: Retry | Fail | Reject) -> None:
        if verdict.trace is not None:
            self._found[operation_id] = verdict.trace

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Forget the errors of operations that have succeeded; a callback's success is not theirs."""
        for settlement in settlements:
            if settlement.verb is Verb.COMPLETE and not settlement.delivery.operation.phase:
                self._found.pop(settlement.delivery.operation_id, None)

    def lease_lost(self, operations: int) -> None:
        """Do nothing: they run again."""

    def throw(self) -> None:
        """Raise the first error, if there is one."""
        for found in self._found.values():
            if len(self._found) > 1 and found.error is not None:
                found.error.add_note(f"{len(self._found) - 1} other operations failed, too")
            raise found.error or found.loggable


class _Watch:
    """Looks at what a worker serves."""

    def __init__(self, worker: QueueWorker, delayed: Delayed) -> None:
        self._shard = worker.config.shard
        self._names = worker.queues
        self._delayed = delayed
        self._manager = QueueManager(worker.config)
        self.left: dict[str, int] = {}

    async def is_idle(self) -> bool:
        """Look once, and make due what is to be skipped. `left` then says what there was."""
        keys = self._shard.keys
        before = await self._manager.aget_queue_status()
        waiting = await self._read_delayed()
        later = [member for member, due_ms in waiting.items() if due_ms > before["status_time"] * 1000]
        ready = {key: count for key, count in before.items() if count and self._serves(key)}
        running = before[f"{keys.prefix}running"]
        due = len(waiting) - len(later)
        counted = {"running": running, "due": due, "delayed": len(later)}
        self.left = {**ready, **{name: count for name, count in counted.items() if count}}
        if later and self._delayed == "skip":
            await self._make_due(later)
        busy = ready or running or due or (later and self._delayed != "leave")
        # An operation may have passed from one place to another between the two reads; then the figures have changed.
        return not busy and _signs(before) == _signs(await self._manager.aget_queue_status())

    def _serves(self, key: str) -> bool:
        queue = split_queue(key.removeprefix(self._shard.keys.prefix).encode())
        return queue is not None and (not self._names or queue[1] in self._names)

    async def _read_delayed(self) -> dict[bytes, float]:
        """Return the delayed operations that are served, with the ms at which they are due."""
        flat = await self._shard.arun(plain(list[bytes], "ZRANGE", self._shard.keys.delayed, 0, -1, "WITHSCORES"))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        prefix = self._shard.keys.prefix
        return {
            member: float(due_ms)
            for member, due_ms in pairs
            if self._serves(prefix + split_member(member)[0].decode(errors="replace"))
        }

    async def _make_due(self, members: list[bytes]) -> None:
        """Let members of the delayed set be due, the first one first, and wake the worker."""
        keys = self._shard.keys
        run = self._shard.arun
        scored = [argument for rank, member in enumerate(members) for argument in (rank, member)]
        await run(plain(int, "ZADD", keys.delayed, "XX", *scored))
        for name in self._names or (None,):
            await run(plain(int, "ZADD", keys.wake(name), 0, "r"))


def _signs(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in _NO_SIGN_OF_WORK}
